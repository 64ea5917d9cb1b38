"""Sentences of a search's report, on results made by hand."""

import pytest

from rlmerge.search.report.words import headline, is_proxy, verdicts


def result(dev, test, objective="gain_kept"):
    interval = {"value": test, "low": test - 0.01, "high": test + 0.01}
    winner = {"name": "trial 3", "role": "winner", "dev": dev, "test": interval}
    base = {"name": "base", "role": "base", "dev": 0.0, "test": None}
    pair = {"against": "base", "objective": "gain_kept", "difference": interval, "verdict": "better"}
    return {
        "objectives": [{"name": objective}],
        "finalists": [winner, base],
        "comparisons": [pair],
        "trials": [{}] * 24,
        "baseline": [{}] * 8,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("proxy:kl", True),
        ("2 proxy:kl", True),
        ("proxy:kl + 0.5 proxy:survival", True),
        ("gain_kept", False),
        ("task:proxy:kl", False),
        ("gain_kept + 0.5 off_task", False),
    ],
)
def test_proxies_by_their_names(name, expected):
    assert is_proxy(name) is expected


def test_a_difference_is_told_with_its_sign():
    (first, _) = verdicts(result(0.8, -0.05))
    assert first.text.startswith("gain_kept differs by −0.050 [−0.060, −0.040]")


def test_what_the_choice_cost():
    """0.80 on dev and 0.75 on test: 0.05 too high; the other way round nothing can be said to be too high."""
    *_, high = verdicts(result(0.8, 0.75))
    assert "The best of 32 scored recipes looks better than it is where it was chosen: by 0.050 here" in high.text
    *_, low = verdicts(result(0.75, 0.8))
    assert "although test is 0.050 higher here" in low.text and "−" not in low.text


def test_a_proxys_winner_was_not_chosen_by_scores():
    *_, last = verdicts(result(0.8, 0.75, "proxy:kl"))
    assert last.title.startswith("0.800 on the items of the search")
    assert "saw none of these scores" in last.text


def test_a_search_without_scores_says_so():
    trials = [{"state": "complete"}] * 6
    blind = {**result(0, 0, "proxy:kl"), "finalists": [], "comparisons": [], "trials": trials}
    assert headline(blind) == "Best of 6 candidates (6 complete) by proxy:kl; nothing was scored"
