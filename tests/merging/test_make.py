"""Plans: values, layouts and shards worked out from headers, and what a method refuses."""

import numpy as np
import pytest

import rlmerge
from rlmerge.errors import RecipeError, RequestError
from support.models import write_model

LAYERS = {f"model.layers.{index}.w": np.zeros((4, 5)) for index in range(3)}
BASE = LAYERS | {"model.norm.weight": np.ones(5), "steps": np.arange(6)}


@pytest.fixture
def folder(tmp_path):
    for name in ("base", "e0", "e1"):
        write_model(tmp_path / name, BASE, "bfloat16")
    return tmp_path


def asked(folder, method="ties", **parameters):
    models = [{"model": str(folder / f"e{k}")} for k in range(2)]
    return {"merge_method": method, "base_model": str(folder / "base"), "models": models, "parameters": parameters}


def test_each_tensor_gets_its_values(folder):
    density = [{"filter": "layers.0", "value": 0.1}, {"value": 0.9}]
    plan = rlmerge.plan(asked(folder, density=density, **{"lambda": [0, 1]}))
    values = {name: job.values for name, job in plan.jobs.items()}
    assert [values[name]["lam"] for name in LAYERS] == [0.0, 0.5, 1.0]
    assert values["model.layers.0.w"]["density"].tolist() == [0.1, 0.1]
    assert values["model.layers.1.w"]["density"].tolist() == [0.9, 0.9]
    assert (values["model.norm.weight"]["experts"], values["model.norm.weight"]["numel"]) == (2.0, 5)
    assert [name for name, job in plan.jobs.items() if job.method is None] == ["steps"]


def test_a_filter_that_matches_nothing_is_a_warning(folder):
    density = [{"filter": "layer.0", "value": 0.1}, {"value": 0.9}]
    assert "the filter 'layer.0' matches no tensor" in rlmerge.plan(asked(folder, density=density)).warnings


@pytest.mark.parametrize(
    ("options", "stored"),
    [({}, "bfloat16"), ({"out_dtype": "fp16"}, "float16"), ({"dtype": "float32"}, "float32"),
     ({"dtype": "float64", "out_dtype": "bfloat16"}, "bfloat16")],
)  # fmt: skip
def test_output_types(folder, options, stored):
    plan = rlmerge.plan(asked(folder), **options)
    assert {job.output.dtype.name for job in plan.merged} == {stored}
    assert plan.jobs["steps"].output.dtype.name == "int64"
    real = np.float64 if options.get("dtype") == "float64" else np.float32
    assert {job.operands.real for job in plan.merged} == {np.dtype(real)}


def test_shards_hold_every_tensor_in_the_order_it_is_merged(folder):
    plan = rlmerge.plan(asked(folder), shard_size=100)
    assert len(plan.shards) == 2
    assert [output.name for shard in plan.shards for output in shard.tensors] == list(plan.jobs)
    assert plan.bytes_written == sum(shard.size for shard in plan.shards)


def test_what_a_method_refuses_names_recipe_and_tensor(folder):
    broken = asked(folder, "task_arithmetic", normalize=True)
    broken["models"][0]["parameters"] = {"weight": 1}
    broken["models"][1]["parameters"] = {"weight": -1}
    with pytest.raises(RecipeError, match="the weights add up to 0") as caught:
        rlmerge.plan(broken)
    assert len(caught.value.problems) == 1, "once, not for every tensor"


def test_a_threshold_over_the_model_cannot_follow_a_density_that_varies(folder):
    density = [{"filter": "norm", "value": 1.0}, {"value": 0.2}]
    with pytest.raises(RequestError, match="'density' varies from tensor to tensor"):
        rlmerge.plan(asked(folder, density=density, scope="global"))
    rlmerge.plan(asked(folder, density=density))
    rlmerge.plan(asked(folder, density=0.2, scope="global"))


def test_the_digest_covers_what_decides_bytes_and_nothing_else(folder):
    first = rlmerge.plan(asked(folder)).digest
    for same in ({"memory": 2**28}, {"workers": 3}, {"resume": True}, {"cache": False}):
        assert rlmerge.plan(asked(folder), **same).digest == first
    for other in (
        {"seed": 1}, {"out_dtype": "float32"}, {"rounding": "stochastic"}, {"shard_size": 9}, {"on_nonfinite": "keep"},
    ):  # fmt: skip
        assert rlmerge.plan(asked(folder), **other).digest != first
    assert rlmerge.plan(asked(folder, density=0.5)).digest != first
    write_model(folder / "e1", BASE | {"model.norm.weight": np.full(5, 2.0)}, "bfloat16")
    assert rlmerge.plan(asked(folder)).digest != first
