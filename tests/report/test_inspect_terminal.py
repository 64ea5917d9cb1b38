import copy

from rlmerge.report.inspect_terminal import PAIRS_SHOWN, inspect_text


def test_one_screen_with_every_figure_beside_its_chance(result):
    text = inspect_text(result, width=160, color=False)
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
    for expert in result["experts"]:
        assert expert["model"]["name"] in text


def test_problems_come_first_with_their_text(result):
    text = inspect_text(result, width=120, color=False)
    marks = [line[0] for line in text.splitlines() if line[:2] in ("✗ ", "! ", "· ", "✓ ")]
    assert marks == sorted(marks, key="✗!·✓".index)


def test_colour_only_on_request(result):
    assert "\x1b[" in inspect_text(result, width=120, color=True)
    assert "\x1b[" not in inspect_text(result, width=120, color=False)


def test_many_pairs_are_cut_and_said(result):
    many = copy.deepcopy(result)
    many["pairs"] = many["pairs"] * 5
    assert f"the {PAIRS_SHOWN} pairs of 15" in inspect_text(many, width=160, color=False)


def test_without_pairs_forecasts_and_recommendation(result):
    bare = result | {"pairs": [], "forecasts": [], "recommendation": None, "experts": result["experts"][:1]}
    text = inspect_text(bare, width=120, color=False)
    assert "1 expert of base" in text and "recipe" not in text.splitlines()[-1]


def test_a_sample_is_said(result):
    sampled = copy.deepcopy(result)
    for forecast in sampled["forecasts"]:
        forecast["sampled"] = 0.25
    assert "from 25.0% of the weights" in inspect_text(sampled, width=160, color=False)
