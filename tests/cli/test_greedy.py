import pytest

from rlmerge.cli.greedy import spread


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
