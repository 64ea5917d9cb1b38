import json

import click
import pytest

from rlmerge.cli.failures import report, wants_json
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
