"""Memory by hand: equation 6 on real shapes, the printed column, the tile budget, and the verdicts."""

from dataclasses import replace

import pytest

from rlmerge_lab.scaling import memory
from rlmerge_lab.scaling.architectures import LLAMA_70B, Architecture
from rlmerge_lab.scaling.verdict import Verdict
from support.claims import verdict


def test_equation_6_of_a_70b_llama(results):
    model = next(m for m in results["memory"].models if m.name == "Llama-3.1-70B")
    assert model.equation_6 == pytest.approx(4 * 128256 * 8192 * 4 / 1e9)
    assert model.naive == pytest.approx(4 * 70_553_706_496 * 2 / 1e9)
    assert round(model.equation_6, 1) == 16.8


def test_the_printed_table(results):
    rows = results["memory"].printed
    assert [row.naive for row in rows] == [24, 56, 104, 560, 3240]
    assert [round(row.reduction) for row in rows] == [9, 19, 29, 93, 180]
    assert [round(row.largest, 2) for row in rows] == [0.15, 0.25, 0.4, 1.0, 4.0]


def test_the_budget_is_no_property_of_the_model():
    plan = memory.tile_budget(10**9)
    assert plan(LLAMA_70B, 3) == 10**9


def test_a_model_smaller_than_the_budget_needs_less():
    tiny = Architecture("tiny", 8, 1, 16, 2, 1, 100, head_size=4)
    # Largest tensor 100 × 8; base, three experts and the result, 2 + 4 bytes each.
    assert memory.tile_budget()(tiny, 3) == 800 * 5 * 6


def test_another_plan_is_used_as_given():
    study = memory.run(plan=lambda model, agents: 123_000_000 * agents, agents=2)
    assert {model.planned for model in study.models} == {0.246}
    model = next(m for m in study.models if m.name == "Llama-3.1-70B")
    assert model.tiles == -(-128256 * 8192 * 4 * 6 // 246_000_000)


def test_a_small_embedding_would_fit_equation_6(results):
    models = tuple(replace(model, equation_6=5.0) for model in results["memory"].models)
    assert verdict(memory, "Stream peak", replace(results["memory"], models=models)) is Verdict.REPRODUCED


def test_another_naive_column_is_not_the_printed_one(results):
    printed = tuple(replace(row, naive=row.naive + 1) for row in results["memory"].printed)
    assert verdict(memory, "Naive", replace(results["memory"], printed=printed)) is Verdict.NOT_REPRODUCED
