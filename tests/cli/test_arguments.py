from pathlib import Path

import click
import pytest

from rlmerge.cli.arguments import OutputPath, spread


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("m --tasks a b c", "m --tasks a --tasks b --tasks c"),
        ("m --tasks a b --experts x y -o f", "m --tasks a --tasks b --experts x --experts y -o f"),
        ("m --tasks a --tasks b", "m --tasks a --tasks b"),
        ("m -o f --tasks a", "m -o f --tasks a"),
        ("--tasks a b -- m n", "--tasks a --tasks b -- m n"),
        ("--base b m --tasks a", "--base b m --tasks a"),
        ("m --tasks=a b", "m --tasks=a b"),
        ("m --tasks", "m --tasks"),
    ],
)
def test_values_up_to_the_next_option(given, expected):
    assert spread(given.split(), {"--tasks", "--experts"}) == expected.split()
