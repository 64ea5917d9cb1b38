"""The figures, on scores worked by hand."""

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.search.objectives import Standards, read_objective

TABLE = {
    "math": {"base": 0.2, "m": 0.6, "c": 0.25, "x": 0.5},
    "code": {"base": 0.5, "m": 0.45, "c": 0.6, "x": 0.52},
    "chat": {"base": 0.8, "m": 0.7, "c": 0.8, "x": 0.76},
    "loss": {"base": 2.0, "m": 1.0, "c": 2.0, "x": 2.2},
}
OWN = Standards("base", {"math": ("m",), "code": ("c",), "chat": (), "loss": ()}, frozenset({"loss"}))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("gain_kept", (0.3 + 0.02) / (0.4 + 0.1)),
        ("worst", 0.02 / 0.1),
        # Chat fell by 0.04 and the loss rose by 0.2, of 0.8 and 2.0.
        ("off_task", (-0.04 - 0.2) / (0.8 + 2.0)),
        ("mean", (0.5 + 0.52 + 0.76) / 3),
        ("task:loss", -2.2),
        ({"gain_kept": 1, "off_task": 0.5}, 0.64 - 0.5 * 0.24 / 2.8),
        ("gain_kept=1,off_task=0.5", 0.64 - 0.5 * 0.24 / 2.8),
    ],
)
def test_objectives_by_hand(objective, expected):
    found = read_objective(objective, "objective")
    assert found.of_scores(TABLE, "x", OWN) == pytest.approx(expected)
    draws = {task: {name: np.full(3, value) for name, value in row.items()} for task, row in TABLE.items()}
    np.testing.assert_allclose(found.of_scores(draws, "x", OWN), np.full(3, expected))


def test_proxies_are_called_proxies():
    found = read_objective({"proxy:survival": 1, "proxy:retention": 2}, "objective")
    assert found.is_proxy and "a proxy, not a score" in found.describe()
    assert found.of_proxies({"proxy:survival": 0.5, "proxy:retention": 0.25}) == 1.0
    assert not found.needs_prompts
    divergence = read_objective("proxy:kl=2,proxy:survival=1", "objective")
    assert divergence.is_proxy and divergence.needs_prompts
    assert divergence.of_proxies({"proxy:survival": 0.5, "proxy:kl": -0.125}) == 0.25


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("gain_kpet", "Did you mean 'gain_kept'"),
        ({"gain_kept": 0}, "the weight of 'gain_kept' is 0"),
        ({"gain_kept": float("nan")}, "the weight of 'gain_kept' is nan"),
        ("gain_kept=much", "the weight of 'gain_kept' is 'much'"),
        ({"gain_kept": 1, "proxy:survival": 1}, "cannot add up proxies and scores"),
        ([], "this is no objective"),
    ],
)
def test_wrong_objectives(objective, message):
    with pytest.raises(RequestError, match=message):
        read_objective(objective, "objective")


def test_figures_that_mean_nothing_here():
    none = Standards("base", {"math": (), "code": ()})
    with pytest.raises(RequestError, match="needs a task on which an expert is better"):
        read_objective("gain_kept", "").check(none, ["math", "code"])
    both = Standards("base", {"math": ("m",), "code": ("c",)})
    with pytest.raises(RequestError, match="needs a task that is no expert's own"):
        read_objective("off_task", "").check(both, ["math", "code"])
    with pytest.raises(RequestError, match="Did you mean 'math'"):
        read_objective("task:maths", "").check(both, ["math", "code"])
