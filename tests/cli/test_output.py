import json
import os
import sys
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlmerge.cli.output import StdoutError, check_writable, emit, emit_json, note, write_file
from rlmerge.errors import RunError


def test_json_is_one_valid_object_whatever_the_numbers(capsys):
    emit_json({"nan": float("nan"), "each": (1.5, float("inf")), "out": Path("a"), "text": "τ", 3: None})
    text = capsys.readouterr().out
    assert json.loads(text) == {"nan": None, "each": [1.5, None], "out": "a", "text": "τ", "3": None}
    assert "τ" in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_reads_back_and_steers_no_terminal(capsys, value):
    emit_json({"value": value})
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.split("\n"))
    # A pair of escaped halves is one character to every reader of JSON, also where two halves were given.
    assert json.loads(text) == json.loads(json.dumps({"value": value}))


def test_nothing_but_line_breaks_and_tabs_reaches_stdout(capsys):
    emit("a\tb\n\x1b]0;pwned\x07\u202e")
    assert capsys.readouterr().out == "a    b\n\\x1b]0;pwned\\x07\\u202e\n"
    note("\x1b[2J")
    assert capsys.readouterr().err == "\\x1b[2J\n"


class Full:
    """A stream on a full disk."""

    encoding = "utf-8"

    def write(self, _):
        raise OSError(28, "No space left on device")

    flush = write

    def isatty(self):
        return False


def test_a_result_that_cannot_be_written_is_an_error_unless_the_work_is_done(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(StdoutError, match="stdout cannot be written"):
        emit("x")
    emit("x", unless="out")
    emit_json({"x": 1}, unless="out")
    assert (
        capsys.readouterr().err.count("warning: stdout cannot be written (No space left on device); out is complete")
        == 2
    )


def test_a_note_that_cannot_be_written_is_nobodys_concern(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    note("x")


def test_places_that_take_no_file_are_told_before_the_work(tmp_path):
    with click.Context(click.Command("x")):
        check_writable(None, tmp_path / "file")
        with pytest.raises(click.UsageError, match="is a directory"):
            check_writable(None, tmp_path)
        with pytest.raises(click.UsageError, match="its directory does not exist"):
            check_writable(tmp_path / "absent" / "file")


def test_a_result_is_written_whatever_the_names_in_it(tmp_path):
    write_file(tmp_path / "new" / "file", "τ \udcff")
    assert (tmp_path / "new" / "file").read_text() == "τ \\udcff"
    with pytest.raises(RunError, match="cannot be written"):
        write_file(Path("/dev/full"), "x")


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="cannot be written"):
        write_file(tmp_path / "pipe", "x")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "x")
    assert os.read(reader, 9) == b"x"
    os.close(reader)
