"""What an inspection says of the routers of a mixture of experts: how far they moved, and what merges leave of that."""

import math

import pytest

from rlmerge.inspection.inspect import inspect
from rlmerge.inspection.report.terminal import inspect_text
from support.merges import merge, write

ROUTER, OTHER = "model.layers.0.mlp.gate.weight", "model.layers.0.self_attn.q_proj.weight"
STEP = 2.0**-7
"""The distance of bfloat16 numbers above 1: half of it is rounded to 1, the even one."""


@pytest.fixture
def folder(tmp_path):
    base = {ROUTER: [[1.0, 1.0]], OTHER: [[1.0, 1.0]]}
    a = {ROUTER: [[1.0 + STEP, 1.0]], OTHER: [[2.0, 1.0]]}
    b = {ROUTER: [[1.0, 1.0 + STEP]], OTHER: [[1.0, 2.0]]}
    write(tmp_path, "bfloat16", base=base, a=a, b=b)
    return tmp_path


def look(folder, *experts, **more):
    return inspect(folder / "base", [folder / expert for expert in experts], **more)


def test_movement_and_survival_apart(folder):
    found = look(folder, "a", "b")
    assert found.routers.relative_norm == pytest.approx((STEP / math.sqrt(2),) * 2)
    assert found.routers.unchanged == (0.5, 0.5)
    forecasts = {forecast.label: forecast for forecast in found.forecasts}
    # An average halves one step, which is rounded away, and 1, which is not; the plain sum keeps both.
    average, total = forecasts["linear (average)"], forecasts["task arithmetic, weight 1"]
    assert (average.routers, average.survived) == (0.0, 0.5)
    assert (total.routers, total.survived) == (1.0, 1.0)
    (finding,) = [finding for finding in found.findings if finding.rule == "routers"]
    assert finding.level == "warning" and "filter: router" in finding.text
    text = inspect_text(found, width=160, color=False)
    assert "routers (1)" in text and "of routers" in text
    data = found.to_dict()
    assert data["routers"]["unchanged"] == [0.5, 0.5] and data["forecasts"][0]["routers"] == average.routers
    assert "survive, routers" in found.to_html()


def test_one_expert_that_moved_them_is_no_conflict(folder):
    found = look(folder, "a")
    (finding,) = [finding for finding in found.findings if finding.rule == "routers"]
    assert (finding.level, finding.title) == ("good", "only a moved the routers")
    (finding,) = [finding for finding in look(folder, "base").findings if finding.rule == "routers"]
    assert finding.title == "no expert moved the routers"


def test_looking_back(folder):
    recipe = "{merge_method: task_arithmetic, base_model: $/base, models: [$/a, $/b], parameters: {weight: 0.5}}"
    merge(folder, recipe)
    after = look(folder, "a", "b", merged=folder / "out").after
    assert (after.routers, after.survived) == (0.0, 0.5)


def test_other_models_have_none(tmp_path):
    write(tmp_path, base={OTHER: [[1.0]]}, a={OTHER: [[2.0]]})
    found = look(tmp_path, "a")
    assert found.routers is None and not any(finding.rule == "routers" for finding in found.findings)
    assert all(math.isnan(forecast.routers) for forecast in found.forecasts)
    text = inspect_text(found, width=160, color=False)
    assert "router" not in text
