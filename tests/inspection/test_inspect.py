import math

import numpy as np
import pytest

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.inspection.inspect import inspect
from rlmerge.options import Options
from support.family import draw
from support.models import stored, write_model


@pytest.fixture(scope="module")
def found(family):
    return inspect(family / "base", [family / "e0", family / "e1", family / "e2"])


@pytest.fixture(scope="module")
def taus(values):
    base, experts = values
    names = [name for name in base if name != "model.rotary.steps"]
    flat = [np.concatenate([m[n].astype(np.float64).reshape(-1) for n in names]) for m in (base, *experts)]
    return flat[0], [expert - flat[0] for expert in flat[1:]]


def test_whole_model_figures_equal_a_float64_reference(found, taus):
    base, deltas = taus
    for expert, tau in zip(found.experts, deltas, strict=True):
        figures = expert.figures
        assert expert.entries == len(base)
        assert figures["unchanged_bits"].value == np.mean(tau == 0)
        assert figures["norm"].value == pytest.approx(np.linalg.norm(tau), rel=1e-6)  # float32 products
        relative = np.linalg.norm(tau) / np.linalg.norm(base)
        assert figures["relative_norm"].value == pytest.approx(relative, rel=1e-6)
        ordered = np.sort(np.abs(tau))
        n = len(tau)
        gini = (2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum())
        assert abs(figures["gini"].value - gini) <= figures["gini"].error + 1e-9
        assert sum(expert.magnitudes.values()) == np.count_nonzero(tau)


def test_pairs_and_sharing(found, taus):
    deltas = taus[1]
    for (a, b), pair in zip(((0, 1), (0, 2), (1, 2)), found.pairs, strict=True):
        first, second = deltas[a] != 0, deltas[b] != 0
        assert pair.figures["jaccard"].value == np.sum(first & second) / np.sum(first | second)
        cosine = deltas[a] @ deltas[b] / np.linalg.norm(deltas[a]) / np.linalg.norm(deltas[b])
        assert pair.figures["cosine"].value == pytest.approx(cosine, abs=1e-7)
    times = sum((tau != 0).astype(int) for tau in deltas)
    assert found.exactly == pytest.approx([np.sum(times == j) / np.sum(times > 0) for j in (1, 2, 3)])


def test_tensors_modules_and_layers_are_all_there(found):
    assert {row.name for row in found.tensors} == {
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.scale",
        "lm_head.weight",
    }
    assert [group.label for group in found.modules][:3] == ["embedding", "head", "norm"]
    assert [group.label for group in found.layers] == ["0", "1"]
    assert found.structure == (
        "the base stores 1 tensor (model.rotary.steps) in a type that holds no plain weights; left out",
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_figures_depend_on_no_thread_count(found, family, workers):
    again = inspect(family / "base", [family / f"e{k}" for k in range(3)], options=Options(workers=workers))
    first, second = found.to_dict(), again.to_dict()
    for data in (first, second):
        assert data.pop("seconds") > data.pop("measuring") > 0
    assert first == second


def test_nan_and_infinity_are_counted_and_not_fatal(tmp_path):
    base, (expert, other) = draw(3, 2, {"w": (300,)})
    expert["w"][[3, 7]] = np.nan, np.inf
    other["w"][9] = -np.inf
    for name, model in (("b", base), ("x", expert), ("y", other)):
        write_model(tmp_path / name, model, "bfloat16")
    found = inspect(tmp_path / "b", [tmp_path / "x", tmp_path / "y"])
    assert [e.nonfinite for e in found.experts] == [2, 1]
    assert all(math.isfinite(e.figures["norm"].value) for e in found.experts)
    assert found.findings[0].rule == "nonfinite"


def test_an_expert_equal_to_the_base_alone(family):
    found = inspect(family / "base", [family / "base"])
    assert found.experts[0].figures["unchanged_bits"].value == 1.0
    assert math.isnan(found.forecasts[0].survived)
    assert found.recommendation is None
    assert "equals_base" in {f.rule for f in found.findings}
    assert '"survived": null' in found.to_json()


def test_identical_experts_and_twelve_of_them(tmp_path):
    base, experts = draw(4, 11, {"model.layers.0.mlp.up_proj.weight": (40, 30)})
    write_model(tmp_path / "base", base, "bfloat16")
    paths = [write_model(tmp_path / f"e{k}", expert, "bfloat16") for k, expert in enumerate([*experts, experts[0]])]
    found = inspect(tmp_path / "base", paths)
    assert len(found.pairs) == 66
    same = found.pair("e0", "e11")
    assert same is not None and same.figures["distance"].value == pytest.approx(0.0, abs=1e-6)
    assert sum(found.exactly) == pytest.approx(1.0)
    assert len(found.forecasts[0].experts) == 12


def test_missing_extra_reshaped_and_scalar_tensors_are_reported(tmp_path):
    full = {"a": np.ones((2, 3)), "b": np.ones(4), "s": np.ones(())}
    write_model(tmp_path / "base", full)
    write_model(tmp_path / "x", {"a": np.full((2, 3), 2.0), "s": np.full((), 3.0), "new": np.ones(1)})
    write_model(tmp_path / "y", {"a": np.ones((3, 2)), "b": np.zeros(4), "s": np.ones(())})
    found = inspect(tmp_path / "base", [tmp_path / "x", tmp_path / "y"])
    assert found.structure == (
        "x lacks 1 tensor (b) of the base",
        "y stores in another shape or packed type: 1 tensor (a [3, 2] float32)",
        "x holds 1 tensor (new) that the base lacks",
    )
    rows = {row.name: row for row in found.tensors}
    assert rows["s"].shape == () and rows["s"].unchanged == (0.0, 1.0)
    assert math.isnan(rows["b"].unchanged[0]) and rows["b"].unchanged[1] == 0.0


def test_mixed_types(tmp_path):
    base, (expert,) = draw(5, 1, {"w": (50,)})
    write_model(tmp_path / "base", base, "float32")
    write_model(tmp_path / "x", expert, "bfloat16")
    found = inspect(tmp_path / "base", [tmp_path / "x"])
    assert found.experts[0].figures["norm"].dtype == "mixed"
    expected = np.mean(stored(expert["w"], "bfloat16").astype(np.float32) == base["w"])
    assert found.experts[0].figures["unchanged_bits"].value == expected
    assert "mixed_dtypes" in {f.rule for f in found.findings}


def test_nothing_to_inspect(tmp_path, family):
    with pytest.raises(RequestError, match="cannot inspect 0 experts"):
        inspect(family / "base", [])
    with pytest.raises(CheckpointError, match="no such directory"):
        inspect(family / "base", [tmp_path / "nowhere"])
    write_model(tmp_path / "other", {"z": np.ones(3)})
    with pytest.raises(RequestError, match="no tensor in common"):
        inspect(family / "base", [tmp_path / "other"])
