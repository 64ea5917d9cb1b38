from hypothesis import given
from hypothesis import strategies as st

from rlmerge.evaluate.repetition import loops, repeated_share


def test_loops_worked_by_hand():
    assert loops(tuple("xy" + "a" * 8))
    assert not loops(tuple("xy" + "a" * 7))
    assert loops(tuple("x" + "abc" * 8))
    assert not loops(tuple("x" + "abc" * 7 + "ab"))
    # Cut in the middle of a copy it is still a loop, of "cab", and needs 8 whole copies of that.
    assert loops(tuple("c" + "abc" * 8 + "ab"))
    assert not loops(tuple("abc" * 8 + "d"))
    assert not loops(()) and not loops(tuple("abcdefgh"))
    assert loops(tuple("abab"), times=2) and not loops(tuple("abba"), times=3)


@given(head=st.text("ab", max_size=5), gram=st.text("ab", min_size=1, max_size=4), copies=st.integers(1, 4))
def test_loops_finds_what_counting_finds(head, gram, copies):
    text = head + gram * copies
    counted = any(text.endswith(text[-n:] * 3) for n in range(1, len(text) + 1))
    assert loops(tuple(text), times=3) == counted


def test_repeated_share_worked_by_hand():
    # abcabcabc holds abca bcab cabc abca bcab cabc: three of six are repetitions.
    assert repeated_share(tuple("abcabcabc")) == 0.5
    assert repeated_share(tuple("aaaaaaa")) == 0.75
    assert repeated_share(tuple("abcdefg")) == 0.0
    assert repeated_share(tuple("aaa")) == 0.0
    assert repeated_share(tuple("abab"), n=2) == 1 - 2 / 3
