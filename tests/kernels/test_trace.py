"""What a trace records, and what it refuses with advice."""

import math

import numpy as np
import pytest

from rlmerge.kernels.trace import Graph, Node, Stack, TraceNamespace, UntraceableError, carried


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def xp(graph):
    return TraceNamespace(graph)


@pytest.fixture
def x(graph):
    return graph.leaf("weight", 0)


@pytest.fixture
def tau(graph):
    return Stack([graph.leaf("weight", k) for k in (1, 2, 3)])


def ops(graph):
    return [tile.op for tile in graph.nodes]


def test_equal_operations_are_one_node(graph, x):
    assert (x + 1) * 2 is (x + 1.0) * 2.0
    assert ops(graph) == ["weight", "constant", "add", "constant", "mul"]
    assert x + 1 is not 1 + x  # the order of operands is part of the arithmetic
    assert graph.constant(0.0) is not graph.constant(-0.0)


def test_experts_broadcast_against_tiles_numbers_and_single_rows(tau, x):
    assert len(tau * x) == len(x * tau) == len(2 * tau) == len(Stack([x]) + tau) == 3
    assert len(Stack([x]) + x) == 1
    assert [tile.inputs[0] for tile in tau - x] == list(tau)


def test_sum_folds_from_first_to_last(xp, tau):
    total = xp.sum(tau)
    assert total is (tau[0] + tau[1]) + tau[2]
    assert total is not tau[0] + (tau[1] + tau[2])


def test_experts_can_be_sliced_indexed_and_iterated(xp, tau):
    assert [tile.data for tile in tau[1:]] == [2, 3]
    assert len(tau[1:] * 2) == 2
    assert tau[-1] is list(tau)[2]
    assert xp.sum(tau[:1]) is tau[0]


def test_comparisons_and_logic_are_masks_and_arithmetic_is_not(xp, x, tau):
    mask = x > 0
    masks = [mask, ~mask, mask & mask, mask | True, True & mask, xp.isfinite(x), xp.any(tau), xp.all(tau > 0)]
    assert all(isinstance(tile, Node) and tile.is_bool for tile in [*masks, xp.where(mask, mask, ~mask)])
    numbers = [x + 1, -x, abs(x), +x, mask * x, xp.count(tau > 0), xp.where(mask, mask, 1.0), xp.max(tau)]
    assert not any(tile.is_bool for tile in numbers)


def test_a_mask_in_arithmetic_is_one_and_zero(xp, x):
    assert (x > 0) * x is xp.where(x > 0, 1.0, 0.0) * x


@pytest.mark.parametrize(
    ("formula", "advice"),
    [
        (lambda xp, x, tau: x if x > 0 else -x, "use xp.where"),
        (lambda xp, x, tau: max(x, 0.0), "use xp.where"),
        (lambda xp, x, tau: 0 < x < 1, "use xp.where"),
        (lambda xp, x, tau: float(x), "use xp.where"),
        (lambda xp, x, tau: math.sqrt(x), "use xp.where"),
        (lambda xp, x, tau: bool(tau), "use xp.where"),
        (lambda xp, x, tau: xp.median(tau), r"xp\.median is not an operation"),
        (lambda xp, x, tau: np.tanh(x), r"numpy\.tanh.*operations of xp"),
        (lambda xp, x, tau: np.where(x > 0, x, 0), r"numpy\.where.*operations of xp"),
        (lambda xp, x, tau: np.asarray(tau), r"numpy\.asarray.*operations of xp"),
        (lambda xp, x, tau: np.float64(2) * x, "Python numbers"),
        (lambda xp, x, tau: x * np.float64(2), "numpy.float64; use Python numbers"),
        (lambda xp, x, tau: tau + np.ones(3), "numpy.ndarray; use Python numbers"),
        (lambda xp, x, tau: x + None, "NoneType"),
        (lambda xp, x, tau: xp.maximum(x, "0"), "str"),
        (lambda xp, x, tau: tau**2, r"x \* x"),
        (lambda xp, x, tau: 2**x, r"x \* x"),
        (lambda xp, x, tau: x // 2, r"\+ - \* /"),
        (lambda xp, x, tau: x % 2, r"\+ - \* /"),
        (lambda xp, x, tau: tau @ tau, r"\+ - \* /"),
        (lambda xp, x, tau: tau.mean(axis=0), r"'\.mean'.*operations of xp"),
        (lambda xp, x, tau: tau.shape, r"'\.shape'"),
        (lambda xp, x, tau: x[0], "one number per coordinate"),
        (lambda xp, x, tau: len(x), "one number per coordinate"),
        (lambda xp, x, tau: xp.sum(x), "one number per coordinate"),
        (lambda xp, x, tau: tau[:, None], "an expert's number or a slice"),
        (lambda xp, x, tau: tau[tau > 0], "an expert's number or a slice"),
        (lambda xp, x, tau: tau.__setitem__(0, x), "knows"),
        (lambda xp, x, tau: tau + tau[1:], r"stacks of \[2, 3\] experts"),
        (lambda xp, x, tau: x & x, "compare numbers first"),
        (lambda xp, x, tau: (x > 0) & 1, "compare numbers first"),
        (lambda xp, x, tau: ~x, "compare numbers first"),
        (lambda xp, x, tau: (x > 0) + (x > 1), "not masks; use xp.where"),
        (lambda xp, x, tau: (x > 0) * 2, "not masks; use xp.where"),
        (lambda xp, x, tau: xp.sign(x > 0), "not masks; use xp.where"),
        (lambda xp, x, tau: xp.sum(tau > 0), "use xp.count"),
    ],
)
def test_what_has_no_meaning_for_one_coordinate_is_refused_with_advice(xp, x, tau, formula, advice):
    with pytest.raises(UntraceableError, match=advice):
        formula(xp, x, tau)


def test_tiles_do_not_pretend_to_have_protocols_they_lack(x):
    assert not hasattr(x, "__array_interface__")
    assert not hasattr(x, "__fspath__")


def test_which_weights_a_result_tells_of(xp, x, tau):
    """Inf − Inf, 0 · Inf and √−1 are NaN; what is chosen, bounded, compared or divided by may be finite again."""
    one, two, three = tau
    assert carried([x + one, xp.abs(two - three)]) == {0, 1, 2, 3}
    assert carried([xp.sqrt(x * 0.0) / one]) == {0}
    assert carried([-x, xp.where(one > 0, two, three)]) == {0}
    assert carried([xp.minimum(x, one), xp.sign(two)]) == set()
    assert carried([]) == set()
