from dataclasses import replace
from itertools import pairwise
from math import nan

import pytest

from rlmerge.evaluate.report.terminal import ROWS, eval_text
from rlmerge.text import columns
from support.evaluations import SCORES, evaluation, full, health, hostile, landscape, unknown, wide

RESULTS = {
    "full": full(),
    "many tasks": wide(12, 12),
    "one task": evaluation({"base": (0.2,), "e": (0.6,), "m": (0.6,)}, ("gsm8k",), experts=1),
    "no merge": evaluation(dict(list(SCORES.items())[:4])),
    "only a base": evaluation({"base": (0.2,)}, ("t",), experts=0),
    "hostile": hostile(),
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_nothing_is_wider_than_the_terminal(result, width):
    lines = eval_text(result, width=width, color=False).splitlines()
    assert max(map(columns, lines)) <= width
    assert lines[-1] and not any(line != line.rstrip() for line in lines)
    assert not any(a == b == "" for a, b in pairwise(lines))


@pytest.mark.parametrize("width", [60, 200])
def test_the_verdict_comes_first_and_the_next_step_last(width):
    text = eval_text(full(), width=width, color=False)
    found = [text.index(f"{mark} {name}") for mark, name in (("!", "average"), ("!", "task-arithmetic"), ("!", "ties"))]
    found += [text.index(words) for words in ("\nScores\n", "What each merge keeps", "Compared", "Generation health")]
    found += [text.index("Landscape"), text.index("\nwarning: "), text.index("\nnext: ")]
    assert found == sorted(found)


def test_figures_of_a_wide_terminal():
    lines = eval_text(full(), width=200, color=False).splitlines()
    (row,) = [line for line in lines if line.startswith("rl-rev ") and "expert" in line]
    assert row.split() == (
        ["rl-rev", "expert", "0.435", "[0.405,", "0.465]", "0.588", "[0.558,", "0.618]", "0.360", "[0.330,", "0.390]"]
    )  # fmt: skip
    (row,) = [line for line in lines if line.startswith("ties ") and "rl-rev" in line]
    # merged / expert = 0.231 / 0.435; its interval ± 0.03 / 0.435; (0.231 - 0.252) / (0.435 - 0.252)
    assert "53.1 %   [46 %, 60 %]" in row and "−11 %   [−28 %, 5 %]" in row and row.endswith("undecided  worse")
    rows = [" ".join(line.split()) for line in lines]
    assert "ties 21.0 % 35.0 % 74.0 % 50.2 71 0.51 ∞ 0.25 0.2 0.15" in rows


def test_a_narrow_terminal_says_what_it_left_out():
    text = eval_text(full(), width=60, color=False)
    assert "0.435 ±0.030" in text and "±: the longer side" in text
    assert "Left out at this width: expert, base" in " ".join(text.split())
    assert "retention  to base    to expert" in text


def test_many_tasks_are_shown_in_blocks_and_the_worst_rows_of_each_merge():
    text = eval_text(wide(12, 12), width=80, color=False)
    header = [line for line in text.splitlines() if line.startswith("model ") and "task-" in line]
    assert len({line.count("task-") for line in header}) == 1 and sum(line.count("task-") for line in header) == 12
    assert f"The {ROWS // 6} worst tasks of each merge, of 72 rows" in text
    assert "10 of 21 comparisons, decided ones first" in text


def test_colour_only_on_request():
    assert "\x1b[" in eval_text(full(), width=100, color=True)
    assert "\x1b" not in eval_text(hostile(), width=100, color=False)


def test_a_hostile_name_cannot_colour_or_break_lines():
    text = eval_text(hostile(), width=100, color=False)
    assert "\\x1b[31m\\n" in text
    assert "[bold]x[/bold]" in eval_text(replace(full(), warnings=("[bold]x[/bold]",)), width=100, color=False)


def test_figures_that_are_not_known_are_dashes():
    text = eval_text(unknown(evaluation()), width=120, color=False)
    assert "average: gain not defined" in text and "0.302" in text and "None" not in text and "nan" not in text
    assert "±" not in text


def test_health_without_divergences():
    found = health()
    alone = replace(found, models=tuple(replace(model, kl_to={}) for model in found.models))
    text = eval_text(evaluation(health=alone), width=120, color=False)
    assert "KL to" not in text and "looping" in text
    empty = replace(found, models=())
    assert "Generation health" not in eval_text(evaluation(health=empty), width=120, color=False)


def test_of_a_landscape_the_highest_barrier_and_the_sharpest_task():
    found = landscape()
    path, sharp = found.barriers[0], found.sharpness
    found = replace(
        found,
        barriers=(path, replace(path, task="cnt", barrier=0.7)),
        sharpness=(replace(sharp[0], task="cnt", mean=nan, max=nan), *sharp),
    )
    rows = [
        " ".join(line.split()) for line in eval_text(evaluation(landscape=found), width=100, color=False).splitlines()
    ]
    assert "rl-rev rl-cnt 0.7 cnt" in rows
    assert "rl-rev 0.05 0.084 0.031 rev" in rows and "rl-cnt 0.05 0.04 0.018 rev" in rows
