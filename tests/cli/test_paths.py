from pathlib import Path

import click
import pytest

from rlmerge.cli.paths import OutputPath


def convert(text):
    return OutputPath().convert(text, None, None)


def test_the_home_directory_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert convert("~/m") == Path("/home/me/m")
    assert convert("a/~/m") == Path("a/~/m")
    assert convert("") == Path()


def test_a_home_that_nobody_has():
    with pytest.raises(click.BadParameter, match="names a home directory that cannot be found"):
        convert("~nobody-of-this-name/m")
