"""Merges by workers of a real Ray cluster on this machine: the bytes of one run, whoever is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

import ray

import rlmerge
from rlmerge.api import run_plan, run_plan_on
from rlmerge.checkpoint.shares import Share
from rlmerge.errors import RequestError
from rlmerge.merging import on_ray
from support.family import recipe, tree


@pytest.fixture(scope="module")
def cluster():
    """Two places for tasks; workers import rlmerge from where this process does."""
    source = str(Path(rlmerge.__file__).parents[1])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


def plan_of(family, out, **options):
    asked = recipe(family, "ties", count=2, density=0.3, scope="global")
    return rlmerge.plan(asked, out, shard_size=600_000, **options)


@pytest.fixture(scope="module")
def alone(family, tmp_path_factory):
    place = tmp_path_factory.mktemp("alone") / "out"
    run_plan(plan_of(family, place), place)
    return tree(place)


def test_the_bytes_are_those_of_one_run(cluster, family, tmp_path, alone):
    out = tmp_path / "out"
    result = run_plan_on("ray", plan_of(family, out), out)
    assert tree(out) == alone and rlmerge.verify(out).ok
    assert result.tensors == len(plan_of(family, None).jobs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_killed_workers_change_nothing(cluster, family, tmp_path, alone):
    """Whoever merges a share is killed again and again until three have died."""
    out, killed, done = tmp_path / "out", set(), threading.Event()

    def kill():
        while not done.is_set() and len(killed) < 3:
            for pid in workers() - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
                break
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_plan_on("ray", plan_of(family, out, cache=False), out)
    finally:
        done.set()
        killer.join()
    assert killed and tree(out) == alone


def test_a_slow_task_is_overtaken(cluster, family, tmp_path, monkeypatch):
    """A worker stands still for good: another takes over its task, and the output is that of one run."""
    monkeypatch.setattr(on_ray, "AT_LEAST", 1.0)
    out, stopped, done = tmp_path / "out", set(), threading.Event()

    def stop():
        """The first worker that is seen, while it plans."""
        while not done.is_set() and not stopped:
            for pid in list(workers())[:1]:
                os.kill(pid, signal.SIGSTOP)
                stopped.add(pid)
            time.sleep(0.005)

    def asked(place):
        """A merge that no worker has planned before."""
        return rlmerge.plan(recipe(family, "ties", count=2, density=0.4), place, shard_size=600_000, cache=False)

    run_plan(asked(tmp_path / "alone"), tmp_path / "alone")
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        run_plan_on("ray", asked(out), out)
    finally:
        done.set()
        stopper.join()
    assert stopped and tree(out) == tree(tmp_path / "alone")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["alone", "out"]


def test_what_a_second_attempt_made_takes_the_place_of_the_first(tmp_path):
    """The first one's files go on without a name: whoever holds them open changes nothing that is read."""
    home, spare, share = tmp_path / "home", tmp_path / "spare", Share(2, 1)
    for place, content in ((home, b"first"), (spare, b"second")):
        (place / share.directory).mkdir(parents=True)
        (place / share.directory / "shard").write_bytes(content)
    with (home / share.directory / "shard").open("ab") as late:
        on_ray._adopt(home, spare, share)
        late.write(b"late")
    assert tree(home) == {f"{share.directory}/shard": b"second"} and tree(spare) == {}


def test_a_node_without_the_drivers_folder_says_so(tmp_path):
    with pytest.raises(RequestError, match="the driver's working directory is not on this node") as error:
        on_ray.merge_share((None, None, "out", "digest", str(tmp_path / "nowhere")), 1, 2)
    assert error.value.where == str(tmp_path / "nowhere")


def test_what_a_cluster_says_is_one_line_without_secrets():
    told = RuntimeError("ray::task\n  File x\nConnectionError: ray://user:hunter2@head:10001\n")
    assert on_ray._brief(told) == "ConnectionError: ray://head:10001"


def workers():
    """Processes that run a task of ours now."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::merge_share"):
                found.add(int(entry.name))
    return found


def test_an_error_of_a_worker_is_the_error_of_the_run(cluster, family, tmp_path):
    out = tmp_path / "out"
    plan = plan_of(family, out)
    (tmp_path / ".out.partial" / "share-1-of-2").mkdir(parents=True)
    with pytest.raises(RequestError, match="an interrupted merge by several processes is there"):
        run_plan_on("ray", plan, out)
    with pytest.raises(RequestError, match="shared by 2 processes, not by"):
        run_plan_on("ray", plan_of(family, out, resume=True), out)
    assert not out.exists()
