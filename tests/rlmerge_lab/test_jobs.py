import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.progress import Quiet
from rlmerge_lab.jobs import Pool
from rlmerge_lab.store import Records
from support.jobs import Job


class Told(Quiet):
    """Keeps what a progress is told."""

    def __init__(self):
        self.events = []

    def start(self, phase, total, unit=""):
        self.events.append((phase, total, unit))

    def advance(self, amount):
        self.events.append(amount)

    def done(self):
        self.events.append("done")


def test_results_come_in_the_order_of_the_jobs_and_are_kept(tmp_path):
    jobs = [Job(tmp_path, f"j{n}", n) for n in (3, 1, 2)]
    told = Told()
    with Pool(Records(tmp_path / "kept"), told, 2) as pool:
        found = pool.do("square", jobs)
    assert [record["result"]["square"] for record in found] == [9, 1, 4]
    assert told.events[0] == ("square", 6, "answers")
    assert sorted(told.events[1:-1]) == [1, 2, 3]
    assert told.events[-1] == "done"
    again = Told()
    with Pool(Records(tmp_path / "kept"), again, 1) as pool:
        assert pool.do("square", jobs) == found
        # Only what is new runs, and only that is told.
        assert pool.do("square", [*jobs, Job(tmp_path, "j5", 5)])[-1]["result"]["square"] == 25
    assert again.events == [("square", 5, "answers"), 5, "done"]
    assert sorted(path.name for path in tmp_path.glob("ran-*")) == ["ran-j1", "ran-j2", "ran-j3", "ran-j5"]


def test_processes_have_one_thread_and_leave_the_environment_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Pool(Records(tmp_path / "kept"), Quiet(), 1) as pool:
        (found,) = pool.do("look", [Job(tmp_path, "j1", 1)])
    assert found["result"]["threads"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_errors_keep_their_hint_and_finished_jobs_their_results(tmp_path):
    records = Records(tmp_path / "kept")
    fine, wrong = Job(tmp_path, "j1", 1), Job(tmp_path, "wrong", 2)
    with Pool(records, Quiet(), 1) as pool, pytest.raises(RequestError) as caught:
        pool.do("square", [fine, wrong])
    assert (caught.value.where, caught.value.hint) == ("here", "Do that.")
    assert records.find(fine.label, fine.identity) is not None


def test_a_process_that_dies_is_an_error_that_names_the_job(tmp_path):
    with Pool(Records(tmp_path / "kept"), Quiet(), 1) as pool, pytest.raises(RunError, match="died") as caught:
        pool.do("square", [Job(tmp_path, "dies", 1)])
    assert caught.value.where == "dies"
    assert "continues" in str(caught.value)


def test_processes_do_not_outlive_a_parent_that_is_killed(tmp_path):
    code = f"""
from pathlib import Path
from rlmerge_lab.jobs import Pool
from rlmerge_lab.store import Records
from rlmerge.progress import Quiet
from support.jobs import Job
if __name__ == "__main__":
    with Pool(Records(Path({str(tmp_path / "kept")!r})), Quiet(), 1) as pool:
        pool.do("wait", [Job(Path({str(tmp_path)!r}), "sleeps", 1)])
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    try:
        worker = int(wait_for(tmp_path / "ran-sleeps"))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def wait_for(file, seconds=60):
    deadline = time.monotonic() + seconds
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.05)
    return file.read_text()


def is_alive(pid):
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
