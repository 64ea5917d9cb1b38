"""Verdicts: each way of judging, and that a claim's number follows the result."""

from rlmerge_lab.scaling.verdict import Rule, Verdict, graded, holds, judge, printed


def test_printed_compares_at_the_printed_digits():
    verdict = printed(lambda x: x, 0.587, 3)
    assert verdict(0.58715) is Verdict.REPRODUCED
    assert verdict(0.58751) is Verdict.NOT_REPRODUCED


def test_holds_gives_its_own_verdict_or_none():
    in_kind = holds(lambda x: x > 0, Verdict.IN_KIND)
    assert (in_kind(1), in_kind(-1)) == (Verdict.IN_KIND, Verdict.NOT_REPRODUCED)
    assert holds(lambda x: x > 0)(1) is Verdict.REPRODUCED


def test_graded_takes_the_first_that_holds():
    verdict = graded(lambda x: x > 2, lambda x: x > 1)
    assert [verdict(x) for x in (3, 2, 1)] == list(Verdict)


def test_a_claim_carries_the_computed_number():
    rule = Rule("s", "Table 1", "2", lambda x: f"{x}", holds(lambda x: x == 2), lambda x: f"because {x}")
    (claim,) = judge([rule], 3)
    assert claim.to_dict() == {
        "statement": "s",
        "where": "Table 1",
        "paper": "2",
        "ours": "3",
        "verdict": "not reproduced",
        "reason": "because 3",
    }
