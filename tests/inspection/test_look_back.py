import numpy as np
import pytest

import rlmerge
from rlmerge.errors import RequestError
from rlmerge.inspection.inspect import inspect
from rlmerge.recipe import load_recipe
from support.family import recipe
from support.models import write_model


@pytest.mark.parametrize(("method", "parameters"), [("linear", {}), ("ram", {}), ("task_arithmetic", {"weight": 0.5})])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_finds_in_the_stored_weights_what_the_merge_accounted_for(family, tmp_path, method, parameters, dtype):
    asked = recipe(family, method, **parameters)
    merged = rlmerge.merge(asked, tmp_path / "out", out_dtype=dtype)
    experts = [family / f"e{k}" for k in range(3)]
    after = inspect(family / "base", experts, merged=tmp_path / "out", recipe=load_recipe(asked)).after
    assert after is not None and after.dtype == dtype and after.method == method
    for mine, theirs in zip(after.experts, merged.experts, strict=True):
        assert mine.survived == theirs.survival
        # The merge keeps float32 sums of blocks, good to 2^-14.
        assert mine.realised == pytest.approx(theirs.realised, rel=2e-4)
        assert mine.requested == pytest.approx(theirs.requested, rel=2e-4)
        assert mine.relative_error == pytest.approx(abs(1 - mine.realised), abs=0.05)


def test_a_foreign_model_is_refused(family, tmp_path):
    write_model(tmp_path / "other", {"z": np.ones(3)})
    with pytest.raises(RequestError, match="no tensor in common"):
        inspect(family / "base", [family / "e0"], merged=tmp_path / "other")
