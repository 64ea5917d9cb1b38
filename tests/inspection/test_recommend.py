import numpy as np
import pytest

from rlmerge.inspection.recommend import recommend, retaining_weights
from rlmerge.recipe import load_recipe
from support.evidence import evidence

VECTORS = {"rows": (((10,), 0.5),)}
"""Evidence of a model without a matrix."""


@pytest.mark.parametrize("unchanged", [0.1, 0.9])
def test_the_method_that_kept_most_is_recommended_with_its_limits(unchanged):
    found = recommend(evidence(unchanged=(unchanged, unchanged)))
    recipe = load_recipe(found.yaml)
    assert recipe.method.name == "covariance"
    values = recipe.values("model.layers.0.w", 1)
    assert values["lam"] == 1.0 and values["weight"].tolist() == [1.0, 1.0]
    assert {"base_model", "merge_method", "lambda", "out_dtype"} <= set(found.reasons)
    reason = found.reasons["merge_method"]
    assert "0.3 M parameters" in reason and "task_arithmetic beside it" in reason
    assert ("move too" in reason) == (unchanged > 0.5)


def test_models_without_matrices_start_from_task_arithmetic_that_retains_each():
    gram = np.array([[1.0, 0.5], [0.5, 1.0]]) * 1e-4
    found = recommend(evidence(gram=gram, relative=(0.01, 0.01), **VECTORS))
    recipe = load_recipe(found.yaml)
    assert recipe.method.name == "task_arithmetic"
    # w (1 + 0.5) = 1
    assert recipe.values("x", 1)["weight"] == pytest.approx([0.67, 0.67])
    assert "weight" in found.reasons


def test_large_updates_are_scaled_down():
    far = {"unchanged": (0.0, 0.0), "relative": (0.12, 0.12)}
    assert load_recipe(recommend(evidence(**far, **VECTORS)).yaml).values("x", 1)["weight"] == pytest.approx([0.5, 0.5])
    found = recommend(evidence(**far))
    assert load_recipe(found.yaml).values("x", 1)["lam"] == 0.5
    assert "scaled by 0.50" in found.reasons["lambda"]


def test_an_expert_that_a_larger_one_covers_gets_nothing_and_a_reason():
    gram = np.array([[25.0, 3.0], [3.0, 1.0]]) * 1e-4
    found = recommend(evidence(unchanged=(0.0, 0.0), relative=(0.05, 0.01), gram=gram, **VECTORS))
    assert load_recipe(found.yaml).values("x", 1)["weight"].tolist() == [1.0, 0.0]
    assert "e1 gets 0" in found.reasons["weight"]


def test_experts_without_news_are_left_out():
    three = {"unchanged": (0.1,) * 3, "own": (0.5,) * 3, "nonfinite": (0,) * 3, "dtypes": ("bfloat16",) * 4}
    found = recommend(evidence(relative=(0.01, 0.0, 0.02), **three))
    assert len(load_recipe(found.yaml).experts) == 2
    assert "without e1" in found.reasons["models"]


def test_mixed_types_are_merged_in_float32():
    found = recommend(evidence(dtypes=("float32", "bfloat16", "float32")))
    assert load_recipe(found.yaml).dtype == "float32"


@pytest.mark.parametrize(
    "case",
    [
        {"relative": (0.0, 0.01)},
        {"relative": (0.01, 0.9)},
        {"structure": ("e0 lacks a tensor",)},
        {"distance": 0.0, "jaccard": 1.0},
    ],
)
def test_nothing_to_recommend(case):
    assert recommend(evidence(**case)) is None


def test_retaining_weights_solve_or_come_closest():
    rng = np.random.default_rng(0)
    tau = rng.standard_normal((3, 50)) * [[1.0], [2.0], [0.5]] + 0.3 * rng.standard_normal(50)
    gram = tau @ tau.T
    weights = retaining_weights(gram)
    inside = (weights > 0) & (weights < 1)
    assert (gram @ weights / np.diag(gram))[inside] == pytest.approx(1.0, abs=1e-3)  # 200 steps of descent
    assert retaining_weights(np.diag([1.0, 9.0])).tolist() == [1.0, 1.0]
    opposed = np.array([[1.0, -0.5], [-0.5, 1.0]])
    assert retaining_weights(opposed).tolist() == [1.0, 1.0]  # 2 would be needed; no expert is amplified
