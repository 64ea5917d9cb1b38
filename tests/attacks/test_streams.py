"""Streams that are closed, full, gone, or of another encoding: real processes, as a shell starts them."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlmerge
from support.attacks.merging import MERGE
from support.family import COMMAND, tree

STREAMS = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "stdin closed": "<&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "stderr full": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
    "a reader that leaves": "| true",
    "both to a reader that leaves": "2>&1 | true",
}


def shell(folder, arguments, streams, **environment):
    """The exit code of a command whose streams a shell has redirected, and what of its stdout and stderr is left."""
    line = f'"$@" {streams}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        timeout=120,
    )
    text = done.stdout + done.stderr
    assert b"Traceback" not in text and b"unexpected" not in text and b"Exception" not in text, text.decode()
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize("streams", STREAMS)
def test_a_merge_that_is_published_ends_with_0(family, streams, form):
    code, out, _ = shell(family, [*MERGE, "--format", form], STREAMS[streams])
    assert code == 0
    assert rlmerge.verify(family / "out").ok
    assert not (family / ".out.partial").exists()
    if form == "json" and out:
        assert json.loads(out)["tensors"] == 5


@pytest.mark.parametrize(
    ("streams", "form"),
    [("stdout full", "json"), ("both full", "json"), ("both full", "human"), ("all closed", "human"),
     ("all closed", "json"), ("both to a reader that leaves", "human")],
)  # fmt: skip
def test_an_error_keeps_its_code(family, streams, form):
    (family / "e0" / "model.safetensors").write_bytes(b"x")
    code, *_ = shell(family, [*MERGE, "--format", form], STREAMS[streams])
    assert code == 2
    assert not (family / "out").exists()


@pytest.mark.parametrize("streams", ["stdout closed", "stdout full", "all closed", "a reader that leaves"])
@pytest.mark.parametrize("arguments", [("methods",), ("--help",), ("methods", "ties", "--format", "json")])
def test_a_result_that_nobody_can_get(family, streams, arguments):
    code, _, err = shell(family, arguments, STREAMS[streams])
    assert code == (1 if streams == "stdout full" else 0)
    assert streams != "stdout full" or b"No space left on device" in err


def test_what_libraries_print_to_a_closed_stream_goes_into_no_file(family):
    """Without care the first file that is opened gets the number of the closed stream."""
    printing = [
        sys.executable, "-c",
        "import os\nreal = os.pwrite\n"
        "os.pwrite = lambda *a: (os.write(2, b'noise'), os.write(1, b'noise'), real(*a))[2]\n"
        "from rlmerge.cli import main; main()",
    ]  # fmt: skip
    line = '"$@" >&- 2>&- <&-'
    subprocess.run(["bash", "-c", line, "bash", *printing, *MERGE], cwd=family, check=True)
    assert rlmerge.verify(family / "out").ok
    assert all(b"noise" not in data for data in tree(family / "out").values())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
@pytest.mark.parametrize("form", ["human", "json"])
def test_any_encoding(family, encoding, form):
    (family / "e0").rename(family / "模型τ")
    arguments = ["merge", "--method", "ties", "--base", "base", "模型τ", "-o", "out", "--format", form]
    code, out, _ = shell(family, arguments, "", PYTHONIOENCODING=encoding)
    assert code == 0
    # Where the locale says ASCII, which it rarely means, click writes UTF-8.
    assert "模型τ" in out.decode("utf-8" if encoding == "ascii" else encoding) or encoding == "latin-1"


def test_a_terminal_that_goes_away(family):
    """As when a connection breaks while a merge runs that was started to survive it."""
    slow = (
        "import os, time\nreal = os.pwrite\nos.pwrite = lambda *a: (time.sleep(0.2), real(*a))[1]\n"
        "from rlmerge.cli import main; main()"
    )
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *MERGE],
        cwd=family,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(terminal)
    while process.poll() is None and not (family / ".out.partial" / "model").exists():
        time.sleep(0.01)
    os.close(control)
    assert process.wait(timeout=60) == 0
    assert rlmerge.verify(family / "out").ok


def test_ctrl_c_once_the_output_is_complete(family):
    """Between the rename and the last word there is time for an interrupt; the output is whole, and that is said."""
    late = (
        "import os, signal\nfrom rlmerge.checkpoint import partial\nreal = partial.publish\n"
        "def publish(*a):\n    real(*a)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "partial.publish = publish\nfrom rlmerge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", late, *MERGE, "--quiet"],
        cwd=family,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130
    assert "interrupted when the output was complete" in done.stderr and "--resume" not in done.stderr
    assert rlmerge.verify(family / "out").ok
    again = subprocess.run([*COMMAND, *MERGE, "--quiet", "--force"], cwd=family, capture_output=True, text=True)
    assert again.returncode == 0
    assert not (family / ".out.partial").exists()


@pytest.mark.parametrize("megabytes", [60, 120, 250, 400, 700, 1000, 2000])
def test_too_little_memory_is_a_message(family, megabytes):
    """RLIMIT_AS from too little to import NumPy to plenty; below what the interpreter needs, it speaks for itself."""
    line = f'ulimit -v {megabytes * 1024}; "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *MERGE, "--quiet"],
        cwd=family,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "unexpected" not in done.stderr, done.stderr
    assert not (megabytes >= 120 and done.returncode) or done.stderr.startswith("error: "), done.stderr
    if done.returncode == 0:
        assert rlmerge.verify(family / "out").ok
    else:
        assert not Path(family / "out").exists()
