"""The ablation turns every switch that the two reconstructions have, and its table shows what it measured."""

from io import StringIO

import ablation
import numpy as np
import pytest
from rich.console import Console

from rlmerge import methods
from rlmerge.recipe import load_recipe


@pytest.mark.parametrize(("name", "rows"), [("sar_merging", ablation.sar_rows), ("scf_rkl", ablation.scf_rows)])
def test_every_switch_is_turned(name, rows):
    method = methods.get(name)
    turned = {(key, value) for row in rows() for key, value in row.parameters.items()}
    for parameter in method.parameters:
        values = {value for key, value in turned if key == parameter.name}
        if parameter.choices and not (name == "scf_rkl" and parameter.name == "measured_on"):
            assert values == set(parameter.choices) - {parameter.default}, parameter.name
        elif parameter.name not in ("epsilon", "measured_on"):
            assert values and parameter.default not in values, parameter.name


def test_rows_are_recipes_that_load():
    for row in (*ablation.sar_rows(), *ablation.scf_rows(), *ablation.other_rows()):
        recipe = load_recipe(row.recipe())
        assert recipe.method.name == row.method
        assert bool(recipe.inputs) == (row.measured is not None)


def test_without_torch_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(ablation.importlib.util, "find_spec", lambda name: None)
    out = StringIO()
    assert not ablation.measure(Console(file=out, width=120), 8)
    assert "torch is not installed" in out.getvalue()


def test_a_row_stands_beside_task_arithmetic_of_its_norm(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "OUT", tmp_path)
    judge = ablation.Judge("test.jsonl", ablation.TASKS)
    judge.items = judge.items[::50]
    longest = max(ablation.sar_rows(), key=lambda row: len(row.label))
    unmeasured = ablation.Row(longest.method, longest.label, longest.parameters)
    rows = [ablation.Row("task_arithmetic", "lambda 0.5", {"lambda": 0.5}), unmeasured]
    results = [row.run(str(index)) for index, row in enumerate(rows)]
    judge.read((ablation.BASE, *ablation.EXPERTS, *(result.out for result in results)))
    size = ablation.norm(results[0].out)
    line = np.array([[size / 2, size, 2 * size], [0.25, 0.5, 1.0]])
    out = StringIO()
    Console(file=out, width=ablation.WIDTH).print(ablation.table(judge, rows, results, line))
    first, second = (text.split() for text in out.getvalue().splitlines() if "(" in text)
    assert first[:4] == ["task_arithmetic", "(exact)", "lambda", "0.5"]
    assert first[-3:-1] == [f"{size:.4f}", "50%"]
    assert second[:2] == ["sar_merging", "(reconstruction)"]
    assert "…" not in out.getvalue()
