import sys

import pytest
from _measure import measure, table, workspace


def python(code):
    return [sys.executable, "-c", code]


def test_a_command_is_timed_and_its_output_kept():
    run = measure(python("import time; time.sleep(0.2); print('done')"))
    assert run.output == "done\n"
    assert run.wall >= 0.2
    assert 0 < run.cpu == run.user + run.system


def test_limits_of_threads_do_not_reach_the_command(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SOMETHING_ELSE", "2")
    run = measure(python("import os; print(os.environ.get('OMP_NUM_THREADS'), os.environ.get('SOMETHING_ELSE'))"))
    assert run.output == "None 2\n"


def test_peak_counts_anonymous_memory_of_child_processes():
    hold = "import time; block = b'x' * 64_000_000; time.sleep(0.3)"
    alone = measure(python(hold)).peak
    child = measure(python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])")).peak
    # 64 MB of data and some MB of interpreter; two interpreters with the child.
    assert 64e6 < alone < 100e6
    assert alone < child < 130e6


def test_a_failure_ends_the_benchmark_with_its_output():
    with pytest.raises(SystemExit, match=r"exited with 3:\n.*it broke"):
        measure(python("import sys; print('it broke', file=sys.stderr); sys.exit(3)"))


def test_tables_are_aligned_markdown():
    assert table(["method", "s"], [["ram", "1.25"], ["linear", "10"]]).splitlines() == [
        "| method |    s |",
        "| ------ | ---: |",
        "| ram    | 1.25 |",
        "| linear |   10 |",
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_a_workspace_starts_empty_and_is_removed_unless_kept(tmp_path, monkeypatch, keep):
    monkeypatch.setattr("_measure.SCRATCH", tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "old").touch()
    with workspace("demo", keep) as path:
        assert list(path.iterdir()) == []
        (path / "new").touch()
    assert (tmp_path / "demo" / "new").exists() == keep
