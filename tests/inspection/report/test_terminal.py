import math
from dataclasses import replace

from rlmerge.inspection.report.terminal import PAIRS_SHOWN, inspect_text


def test_one_screen_with_every_figure_beside_its_chance(found):
    text = inspect_text(found, width=160, color=False)
    lines = text.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 160
    assert lines[0].startswith("3 experts of base: 607,104 weights in bfloat16")
    for words in (
        "unchanged (bfloat16)",
        "|τ| ≤ 1e-5",
        "chance",
        "null ±",
        "rounded to bfloat16; exact",
        "merge_method",
    ):
        assert words in text
    for name in found.names:
        assert name in text


def test_problems_come_first_with_their_text(found):
    text = inspect_text(found, width=120, color=False)
    marks = [line[0] for line in text.splitlines() if line[:2] in ("✗ ", "! ", "· ", "✓ ")]
    assert marks == sorted(marks, key="✗!·✓".index)


def test_colour_only_on_request(found):
    assert "\x1b[" in inspect_text(found, width=120, color=True)
    assert "\x1b[" not in inspect_text(found, width=120, color=False)


def test_many_pairs_are_cut_and_said(found):
    many = replace(found, pairs=found.pairs * 5)
    assert f"the {PAIRS_SHOWN} pairs of 15" in inspect_text(many, width=160, color=False)


def test_pairs_go_by_their_conflict_and_unknown_ones_last(found):
    shares = (0.2, math.nan, 0.4)
    pairs = [
        replace(pair, a=f"pair{k}", figures={**pair.figures, "conflict_share": replace(measure, value=shares[k])})
        for k, pair in enumerate(found.pairs)
        for measure in (pair.figures["conflict_share"],)
    ]
    text = inspect_text(replace(found, pairs=tuple(pairs)), width=160, color=False)
    assert text.index("pair2") < text.index("pair0") < text.index("pair1")


def test_without_pairs_forecasts_and_recommendation(found):
    bare = replace(found, pairs=(), forecasts=(), recommendation=None, experts=found.experts[:1])
    text = inspect_text(bare, width=120, color=False)
    assert "1 expert of base" in text and "recipe" not in text.splitlines()[-1]


def test_a_sample_is_said(found):
    sampled = replace(found, forecasts=tuple(replace(forecast, sampled=0.25) for forecast in found.forecasts))
    assert "from 25.0% of the weights" in inspect_text(sampled, width=160, color=False)
