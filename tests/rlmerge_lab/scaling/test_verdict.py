"""Each way of judging, and numbers as text."""

from rlmerge_lab.scaling.verdict import Verdict, holds, in_kind, percent, plus_minus, printed


def test_printed_compares_at_the_printed_digits():
    assert printed(0.58715, 0.587, 3) is Verdict.REPRODUCED
    assert printed(0.58751, 0.587, 3) is Verdict.NOT_REPRODUCED


def test_what_does_not_hold_is_not_reproduced():
    assert (holds(True), holds(False)) == (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)
    assert (in_kind(True), in_kind(False)) == (Verdict.IN_KIND, Verdict.NOT_REPRODUCED)


def test_numbers_as_text():
    assert (percent(0.9412), percent(0.5, 0), plus_minus(0.5, 0.25, 2)) == ("94.1 %", "50 %", "0.50 ± 0.25")
