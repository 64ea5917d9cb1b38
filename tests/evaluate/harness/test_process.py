import os
import signal
import subprocess
import sys

import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.harness.process import GuardedProcess, new_directory, run_harness, split_words, tail
from support.command_line import is_running, wait_until


def python(code):
    return [sys.executable, "-c", code]


def test_output_goes_to_files(tmp_path):
    run_harness(python("import sys; print('out'); print('err', file=sys.stderr)"), tmp_path / "new", where="t")
    assert (tmp_path / "new" / "stdout.txt").read_text() == "out\n"
    assert (tmp_path / "new" / "stderr.txt").read_text() == "err\n"


def test_a_crash_tells_code_reason_command_and_place(tmp_path):
    with pytest.raises(RunError) as caught:
        run_harness(python("raise ValueError('no such GPU')"), tmp_path, where="gsm8k on merged")
    text = str(caught.value)
    assert text.startswith("gsm8k on merged: ") and "failed with exit code 1" in text
    assert "ValueError: no such GPU" in text and str(tmp_path) in text and "raise ValueError" in text


def test_a_kill_is_told_by_signal(tmp_path):
    with pytest.raises(RunError, match="was killed by SIGKILL"):
        run_harness(python("import os; os.kill(os.getpid(), 9)"), tmp_path, where="t")


def test_stdout_is_shown_when_stderr_is_silent(tmp_path):
    with pytest.raises(RunError, match="the reason"):
        run_harness(python("print('the reason'); raise SystemExit(3)"), tmp_path, where="t")


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="cannot start 'no-such-harness'"):
        run_harness(["no-such-harness"], tmp_path, where="t")


def test_a_place_that_takes_no_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write there"):
        run_harness(python("pass"), tmp_path / "file" / "inside", where="t")


def test_too_long_is_ended_with_all_it_started(tmp_path):
    code = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    with pytest.raises(RunError, match=r"took longer than 1 s"):
        run_harness(python(code), tmp_path, where="t", timeout=1)
    child = int((tmp_path / "stdout.txt").read_text())
    wait_until(lambda: not is_running(child))


def test_a_guarded_process_outlives_neither_its_end_nor_its_owner(tmp_path):
    """The owner is a process that kills itself without a word; its harness has started a process of its own."""
    harness = "import os, subprocess, sys, time; p = subprocess.Popen(['sleep', '60']);"
    harness += "print(os.getpid(), p.pid, flush=True); time.sleep(60)"
    owner = (
        "import os, subprocess, sys, signal\n"
        "from rlmerge.evaluate.harness.process import GuardedProcess\n"
        f"guarded = GuardedProcess([sys.executable, '-c', {harness!r}], stdout=subprocess.PIPE)\n"
        "print(guarded.process.stdout.readline().decode(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(python(owner), capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in done.stdout.split():
        wait_until(lambda pid=pid: not is_running(pid))


def test_ending_twice_and_ending_what_has_ended_is_quiet():
    guarded = GuardedProcess(["true"])
    guarded.process.wait()
    guarded.end()
    guarded.end()
    assert guarded.process.returncode == 0


def test_environment_is_added(tmp_path):
    run_harness(
        python("import os; print(os.environ['X'], 'PATH' in os.environ)"), tmp_path, where="t", environment={"X": "1"}
    )
    assert (tmp_path / "stdout.txt").read_text() == f"1 {'PATH' in os.environ}\n"


def test_the_tail_is_the_last_state_of_the_last_lines(tmp_path):
    file = tmp_path / "log"
    file.write_bytes(b"\n".join(b"line %d" % i for i in range(100)) + b"\n10%\r50%\r100%\n\n\xff\n")
    assert tail(file)[-3:] == ["line 99", "100%", "�"]
    assert len(tail(file)) == 12
    assert tail(tmp_path / "absent") == []


def test_directories_are_new_and_bear_their_label(tmp_path):
    first, second = (new_directory(tmp_path / "store", "a b/c:d" + "x" * 100) for _ in range(2))
    assert first != second and first.is_dir() and first.name.startswith("a-b-c-dxxx") and len(first.name) < 80
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write there"):
        new_directory(tmp_path / "file", "x")


def test_words_are_split_as_a_shell_would():
    assert split_words("a 'b c' \"d\"") == ["a", "b c", "d"]
    with pytest.raises(RequestError, match="cannot be split into words"):
        split_words("a 'b")
