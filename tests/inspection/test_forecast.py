import numpy as np
import pytest

import rlmerge
from rlmerge.inspection.forecast import default_recipes
from rlmerge.inspection.inspect import inspect
from support.family import recipe
from support.models import write_model


@pytest.fixture(scope="module")
def forecasts(family):
    found = inspect(family / "base", [family / f"e{k}" for k in range(3)], sample=0)
    return {forecast.label: forecast for forecast in found.forecasts}


@pytest.mark.parametrize(("label", "method", "parameters"), default_recipes(3))
def test_equals_what_the_merge_itself_accounts_for(forecasts, family, tmp_path, label, method, parameters):
    forecast = forecasts[label]
    merged = rlmerge.merge(recipe(family, method, **parameters), tmp_path / "out")
    assert forecast.sampled == 1.0
    for mine, theirs in zip(forecast.experts, merged.experts, strict=True):
        # A threshold may lie in a bin of which only the edges are known: half a bin is 2^-9 of it.
        tolerance = 2e-3 if method == "ties" else 0.0
        assert mine.survived == pytest.approx(theirs.survival, abs=tolerance)
        assert mine.realised == pytest.approx(theirs.realised, rel=2e-3, abs=1e-9)
        assert mine.changed == theirs.changed


def test_one_step_changes_do_not_survive_an_average(tmp_path):
    base = np.ones((40, 40), np.float32)
    write_model(tmp_path / "base", {"w": base}, "bfloat16")
    for k in range(3):
        moved = base.copy()
        moved[k] += 2.0**-7
        write_model(tmp_path / f"e{k}", {"w": moved}, "bfloat16")
    found = inspect(tmp_path / "base", [tmp_path / f"e{k}" for k in range(3)])
    by_label = {f.label: f for f in found.forecasts}
    assert by_label["linear (average)"].survived == 0.0
    assert by_label["linear (average)"].experts[0].erased == 1.0
    assert by_label["RAM"].survived == 1.0
    assert by_label["RAM"].experts[0].realised == 1.0
    assert "erasure" in {f.rule for f in found.findings if f.level == "warning"}


def test_a_sample_says_so_and_is_close(family, forecasts):
    found = inspect(family / "base", [family / f"e{k}" for k in range(3)], sample=1_000_000)
    for forecast in found.forecasts:
        assert 0.0 < forecast.sampled < 1.0
        # Binomial noise of at least 10^5 changed coordinates is 0.2 %; tensors differ a little more.
        assert forecast.survived == pytest.approx(forecasts[forecast.label].survived, abs=0.02)
