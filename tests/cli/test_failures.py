import json
from pathlib import Path

import click
import pytest

from rlmerge.cli.failures import Interrupted, interruptible, report, wants_json
from rlmerge.cli.output import StdoutError
from rlmerge.errors import CheckpointError, RecipeError, RequestError, RunError

TWO = RecipeError([RequestError("first", where="r.yaml:1", hint="Do this."), RequestError("second")])
JSON = ["merge", "--format=json"]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RequestError("wrong", where="x", hint="Do y."), 2, "error: x: wrong\n  Do y.\n"),
        (CheckpointError("broken"), 2, "error: broken\n"),
        (RunError("disk full"), 1, "error: disk full\n"),
        (TWO, 2, "error: r.yaml:1: first\n  Do this.\nerror: second\n2 problems; nothing was written.\n"),
        (click.UsageError("no such option"), 2, "error: no such option\n"),
        (click.Abort(), 130, "error: interrupted\n  Run the same command with --resume to continue.\n"),
        (
            RequestError("a\nerror: fake", where="x\ny", hint="See\nthat."),
            2,
            "error: x\\ny: a\n  error: fake\n  See\n  that.\n",
        ),
        (
            Interrupted(Path("o")),
            130,
            "error: o: interrupted when the output was complete\n  There is nothing left to do; "
            "check it with: rlmerge verify 'o'\n",
        ),
        (
            OSError(5, "Input/output error", "f"),
            1,
            "error: f: the system refused (Input/output error)\n"
            "  Check the path and its permissions, then try again.\n",
        ),
        (
            OSError(24, "Too many open files", "f"),
            1,
            "error: f: the system refused (Too many open files)\n"
            "  Raise the limit of open files (ulimit -n), then try again.\n",
        ),
        (
            OSError(12, "Cannot allocate memory"),
            1,
            "error: out of memory\n  Give a smaller --memory or fewer --workers, then --resume.\n",
        ),
        (
            RuntimeError("can't start new thread"),
            1,
            "error: the system starts no more threads\n"
            "  Give fewer --workers, or raise the limits of threads and memory (ulimit -u, ulimit -v).\n",
        ),
        (
            ImportError("long\n\ntext\nOriginal error was: x\n"),
            1,
            "error: a library cannot be loaded (Original error was: x)\n"
            "  If the memory of a process is limited (ulimit -v), raise the limit; otherwise install rlmerge again.\n",
        ),
        (MemoryError(), 1, "error: out of memory\n  Give a smaller --memory or fewer --workers, then --resume.\n"),
    ],
)
def test_one_message_on_stderr_and_the_exit_code(capsys, error, code, text):
    assert report(error, ["merge"]) == code
    out, err = capsys.readouterr()
    assert (out, click.unstyle(err)) == ("", text)


def test_an_unexpected_exception_is_short_unless_asked(capsys, monkeypatch):
    assert report(KeyError("x"), ["merge"]) == 1
    err = click.unstyle(capsys.readouterr().err)
    assert err.startswith("error: unexpected KeyError: 'x'\n")
    assert "RLMERGE_TRACEBACK=1" in err
    monkeypatch.setenv("RLMERGE_TRACEBACK", "1")
    try:
        raise ValueError("deep")
    except ValueError as error:
        report(error, ["merge"])
    assert "Traceback" in capsys.readouterr().err


def test_json_has_every_problem(capsys):
    assert report(TWO, JSON) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": {
            "kind": "RecipeError",
            "exit_code": 2,
            "message": "first\nsecond",
            "problems": [
                {"message": "first", "where": "r.yaml:1", "hint": "Do this."},
                {"message": "second", "where": None, "hint": None},
            ],
        }
    }


def test_only_a_merge_can_be_resumed(capsys):
    assert report(click.Abort(), ["verify", "out", "--format", "json"]) == 130
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["problems"][0]["hint"]) == ("Interrupted", None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "--format", "json"], True),
        (["plan", "--format=json", "x"], True),
        (["plan", "--format", "human"], False),
        (["plan", "json"], False),
        ([], False),
    ],
)
def test_wants_json(arguments, expected):
    assert wants_json(arguments) is expected


def test_an_error_about_stdout_goes_to_stderr_also_where_json_is_asked_for(capsys):
    assert report(StdoutError("stdout cannot be written"), JSON) == 1
    assert capsys.readouterr() == ("", "error: stdout cannot be written\n")


def test_an_interrupt_knows_whether_the_output_was_complete(tmp_path):
    old, out = tmp_path / "old", tmp_path / "out"
    for before, during, complete in (
        (None, None, None),
        (None, "make", out),
        ("make", None, None),
        ("make", "swap", out),
    ):
        if before:
            out.mkdir()
        with pytest.raises(Interrupted) as caught, interruptible(out):
            if during == "swap":
                out.rename(old)
            if during:
                out.mkdir()
            raise KeyboardInterrupt
        assert caught.value.complete == complete
        for folder in (old, out):
            if folder.exists():
                folder.rmdir()
