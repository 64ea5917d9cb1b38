import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.recipe.words import MAX_SHOWN, near_miss, printable

KNOWN = ("density", "weight", "t", "lambda", "models", "dtype")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("densty", "density"),  # one dropped
        ("dennsity", "density"),  # one inserted
        ("dansity", "density"),  # one replaced
        ("desnity", "density"),  # two swapped
        ("wieghts", "weight"),  # swapped and inserted
        ("DENSITY", "density"),
        ("tt", "t"),
        ("dype", "dtype"),
        ("model", "models"),
        ("dens", None),  # three dropped
        ("int8_mask", None),
        ("note", None),  # three edits from every word but `t`, whose two are too few
        ("x" * 1000, None),
    ],
)
def test_within_two_edits(name, meant):
    assert near_miss(name, KNOWN) == meant


def test_the_nearest_of_several_is_named():
    assert near_miss("modelz", ("module", "models", "mode")) == "models"


def test_short_words_may_be_left_out():
    assert near_miss("tag", ("t",)) == "t"
    assert near_miss("tag", ("t",), shortest=5) is None


def edits(one, other):
    """Levenshtein's distance with swaps, as the recursion defines it."""
    if not one or not other:
        return len(one) + len(other)
    found = min(edits(one[1:], other) + 1, edits(one, other[1:]) + 1, edits(one[1:], other[1:]) + (one[0] != other[0]))
    if len(one) > 1 and len(other) > 1 and one[0] == other[1] and one[1] == other[0]:
        found = min(found, edits(one[2:], other[2:]) + 1)
    return found


@given(st.text("abc", min_size=1, max_size=5), st.text("abc", min_size=1, max_size=5))
def test_two_edits_are_what_the_definition_says(name, word):
    assert (near_miss(name, [word]) == word) == (edits(name, word) <= 2)


def test_nothing_that_a_terminal_obeys_is_printed():
    assert printable("a\x1b]0;owned\x07\nb\u202ec") == "a\\x1b]0;owned\\x07\\nb\\u202ec"
    assert printable("模型 é") == "模型 é"


def test_long_text_is_cut_in_the_middle():
    shown = printable("a" * 10_000 + "b")
    assert len(shown) == MAX_SHOWN + 1
    assert shown.startswith("aaa") and shown.endswith("ab") and "…" in shown
