"""Formulas of any shape and values of every kind: the compiled kernel has the bits of the formula on NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, MERGEABLE, decode
from rlmerge.kernels.program import (
    Operands,
    merge_kernel,
    reduce_kernel,
    rows_of,
)
from rlmerge.kernels.random import uniform
from rlmerge.kernels.trace import UntraceableError
from rlmerge.kernels.values import Extra, Uniform, parameters

from .tiles import awkward, expert_of, merged_on_numpy, on_numpy, same_stored, unaligned

SIZES = (1, 15, 16, 17, 33, 100)


def ties(xp, base, tau, *, threshold, weight, scale, normalize):
    """A formula as methods write them, with per-expert, per-tensor and static values."""
    trimmed = xp.where(xp.abs(tau) >= threshold, tau, 0.0)
    sign = xp.where(xp.sum(weight * trimmed) >= 0, 1.0, -1.0)
    agree = trimmed * sign > 0
    total = xp.sum(xp.where(agree, weight * trimmed, 0.0))
    mass = xp.sum(xp.where(agree, weight, 0.0))
    return base + scale * (total / xp.where(mass == 0, 1.0, mass) if normalize else total)


def ties_values(experts, **changes):
    values = {"threshold": np.linspace(0, 0.3, experts), "weight": np.arange(1.0, experts + 1), "scale": 0.7}
    return {**values, "normalize": True, **changes}


def check(formula, layout, arrays, values, out, *, start=0, columns=1, keys=(), **options):
    extra = {}
    for name, value in values.items():
        if isinstance(value, Uniform):
            extra[name] = np.stack([uniform(k, start, len(arrays[0]), layout.real) for k in keys[: value.count]])
    expected, *_ = merged_on_numpy(
        formula, layout, arrays, values, out, start=start, columns=columns, extra=extra, **options
    )
    params, rows = parameters(values)
    stored = np.zeros(len(arrays[0]), out.storage)
    kernel = merge_kernel(formula, layout, values, out, **options)
    kernel(arrays, start=start, out=stored, params=params, rows=rows, columns=columns, keys=keys)
    assert same_stored(stored, expected, out)


def tile(seed, n, layout, special=True):
    rng = np.random.default_rng(seed)
    base = awkward(rng, n, layout.base or layout.experts[0], special)
    experts = [expert_of(rng, base, d) if d is layout.base else awkward(rng, n, d, special) for d in layout.experts]
    return [unaligned(x) for x in (experts if layout.base is None else [base, *experts])]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", MERGEABLE)
def test_ties_on_tiles_of_every_type_and_size(dtype, n):
    layout = Operands(dtype, (dtype,) * 3, True)
    for out in MERGEABLE:
        check(ties, layout, tile(n, n, layout), ties_values(3), out)


@pytest.mark.parametrize("experts", [1, 2, 5, 16])
def test_any_number_of_experts(experts):
    layout = Operands(BFLOAT16, (BFLOAT16,) * experts, True)
    check(ties, layout, tile(experts, 500, layout, special=False), ties_values(experts), BFLOAT16)


@given(base=st.sampled_from(MERGEABLE), experts=st.lists(st.sampled_from(MERGEABLE), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_mixtures_of_types(base, experts):
    layout = Operands(base, tuple(experts), True)
    check(ties, layout, tile(1, 77, layout), ties_values(len(experts)), base)


def test_wide_layouts_compute_in_float64():
    layout = Operands(BFLOAT16, (BFLOAT16,) * 2, True, wide=True)
    assert layout.real == np.float64
    check(ties, layout, tile(2, 100, layout), ties_values(2), FLOAT64)


def numbers(draw, depth):
    """A random expression for numbers, as a function of ``xp`` and the formula's values."""
    if depth == 0 or (draw(st.booleans()) and depth < 3):
        name = draw(st.sampled_from(("base", "tau", "tau", "scale", "weight", "row", "uniform", "0.3", "-2", "0.0")))
        return lambda xp, values: values[name] if name in values else float(name)
    kind = draw(st.sampled_from(("binary", "unary", "where", "extreme", "fold", "count", "masked")))
    x = numbers(draw, depth - 1)
    if kind == "unary":
        op = draw(st.sampled_from(("abs", "sign", "sqrt", "neg")))
        return lambda xp, v: -xp.abs(x(xp, v)) if op == "neg" else getattr(xp, op)(x(xp, v))
    if kind == "fold":
        op = draw(st.sampled_from(("sum", "max", "min")))
        return lambda xp, v: getattr(xp, op)(x(xp, v) + v["tau"])
    if kind == "count":
        condition = masks(draw, depth - 1)
        return lambda xp, v: xp.count(condition(xp, v) & (v["tau"] == v["tau"]))
    y = numbers(draw, depth - 1)
    if kind == "extreme":
        op = draw(st.sampled_from(("minimum", "maximum")))
        return lambda xp, v: getattr(xp, op)(x(xp, v), y(xp, v))
    if kind == "binary":
        op = draw(st.sampled_from("+-*/"))
        steps = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
        return lambda xp, v: steps[op](xp.abs(x(xp, v)), y(xp, v))  # xp.abs turns a Python number into a value
    condition = masks(draw, depth - 1)
    if kind == "masked":
        return lambda xp, v: condition(xp, v) * (v["base"] + x(xp, v))
    return lambda xp, v: xp.where(condition(xp, v), x(xp, v), y(xp, v))


def masks(draw, depth):
    """A random expression for masks."""
    x, y = numbers(draw, max(0, depth - 1)), numbers(draw, max(0, depth - 1))
    op = draw(st.sampled_from(("<", "<=", ">", ">=", "==", "!=", "finite", "&", "|", "~")))
    if depth > 0 and op in "&|~":
        one, other = masks(draw, depth - 1), masks(draw, depth - 1)
        logic = {"&": lambda a, b: a & b, "|": lambda a, b: a | b, "~": lambda a, b: ~a}
        return lambda xp, v: logic[op](one(xp, v), other(xp, v))
    compare = {
        "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
        "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    }  # fmt: skip
    if op not in compare:
        return lambda xp, v: xp.isfinite(x(xp, v))
    return lambda xp, v: compare[op](xp.abs(x(xp, v)), y(xp, v))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_random_formulas(data):
    dtypes = data.draw(st.lists(st.sampled_from(MERGEABLE), min_size=2, max_size=4))
    expression = numbers(data.draw, 4)

    def formula(xp, base, tau, **values):
        found = expression(xp, {"base": base, "tau": tau, **values})
        return xp.sum(found + tau) + base

    layout = Operands(dtypes[0], tuple(dtypes[1:]), True)
    experts, n, start = len(dtypes) - 1, data.draw(st.sampled_from(SIZES)), 37
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    columns = data.draw(st.sampled_from((3, 16, 50)))
    rows = rng.standard_normal((experts, (start + n) // columns + 1))
    values = {"scale": 0.3, "weight": rng.standard_normal(experts), "row": rows, "uniform": Uniform(experts)}
    keys = [(k, 5) for k in range(experts)]
    out = data.draw(st.sampled_from(MERGEABLE))
    check(formula, layout, tile(n, n, layout), values, out, start=start, columns=columns, keys=keys)


@pytest.mark.parametrize("columns", [1, 3, 16, 17, 40, 1000])
@pytest.mark.parametrize("start", [0, 5, 16, 33])
def test_row_wise_values_follow_the_rows_wherever_a_tile_starts(columns, start):
    def scaled_rows(xp, base, tau, *, scale, row):
        return base + scale * xp.sum(row * tau)

    layout, n = Operands(FLOAT32, (FLOAT32,) * 2, True), 130
    rows = np.random.default_rng(0).standard_normal((2, (start + n - 1) // columns + 1))
    values = {"row": rows, "scale": 0.5}
    check(scaled_rows, layout, tile(3, n, layout), values, FLOAT32, start=start, columns=columns)


def test_extra_inputs_are_read_beside_the_experts():
    def weighted(xp, base, tau, *, fisher):
        return base + xp.sum(fisher * tau) / xp.sum(fisher)

    layout, n, rng = Operands(BFLOAT16, (BFLOAT16,) * 2, True), 50, np.random.default_rng(0)
    arrays, fisher = tile(4, n, layout, special=False), [rng.random(n).astype(np.float16), rng.random(n)]
    values = {"fisher": Extra((FLOAT16, FLOAT64))}  # a float64 sensitivity does not widen the merge
    expected, *_ = merged_on_numpy(
        weighted, layout, arrays, values, FLOAT32, extra={"fisher": np.stack(fisher).astype(np.float32)}
    )
    out = np.zeros(n, np.float32)
    merge_kernel(weighted, layout, values, FLOAT32)([*arrays, *fisher], out=out)
    assert same_stored(out, expected, FLOAT32)


def test_weights_without_a_base():
    def mean(xp, base, weights):
        assert base is None
        return xp.sum(weights) / len(weights)

    layout = Operands(None, (BFLOAT16, FLOAT16, FLOAT32), False)
    check(mean, layout, tile(5, 100, layout), {}, BFLOAT16)


@pytest.mark.parametrize("result", [1.5, 3, True])
def test_a_formula_may_return_a_number(result):
    layout = Operands(FLOAT32, (FLOAT32,), True)
    check(lambda xp, base, tau: result, layout, tile(6, 20, layout), {}, FLOAT32)


def test_a_formula_may_return_a_mask():
    layout = Operands(FLOAT32, (FLOAT32,), True)
    check(lambda xp, base, tau: tau[0] > 0, layout, tile(6, 20, layout), {}, FLOAT32)


@pytest.mark.parametrize("result", [lambda tau: None, lambda tau: tau, lambda tau: np.ones(3), lambda tau: "x"])
def test_a_formula_must_return_one_value_per_coordinate(result):
    with pytest.raises(UntraceableError, match=r"one value per coordinate \[n\], not"):
        merge_kernel(lambda xp, base, tau: result(tau), Operands(FLOAT32, (FLOAT32,) * 2, True), {}, FLOAT32)


def test_one_expert_may_stand_for_its_only_row():
    layout = Operands(FLOAT32, (FLOAT32,), True)
    arrays = tile(9, 20, layout)
    out, row = np.zeros(20, np.float32), np.zeros(20, np.float32)
    merge_kernel(lambda xp, base, tau: base + tau, layout, {}, FLOAT32)(arrays, out=out)
    merge_kernel(lambda xp, base, tau: base + tau[0], layout, {}, FLOAT32)(arrays, out=row)
    assert out.tobytes() == row.tobytes()


def test_static_values_select_code_and_numbers_do_not():
    layout = Operands(BFLOAT16, (BFLOAT16,) * 2, True)
    kernel = merge_kernel(ties, layout, ties_values(2), BFLOAT16)
    assert merge_kernel(ties, layout, ties_values(2, scale=9, weight=[3, 4]), BFLOAT16) is kernel
    assert merge_kernel(ties, layout, ties_values(2, normalize=False), BFLOAT16) is not kernel
    assert merge_kernel(ties, layout, ties_values(2), FLOAT32) is not kernel
    assert merge_kernel(ties, layout, ties_values(2), BFLOAT16, keeps_base=False) is not kernel


def test_zero_nonfinite_replaces_inputs_before_the_formula_and_still_reports_them():
    def mean(xp, base, tau):
        return base + xp.sum(tau)

    layout = Operands(FLOAT32, (FLOAT32,), True)
    base, expert = np.array([1, np.nan, 2, 3], np.float32), np.array([np.inf, 5, -np.inf, 4], np.float32)
    out = np.zeros(4, np.float32)
    counts = merge_kernel(mean, layout, {}, FLOAT32, zero_nonfinite=True)([base, expert], out=out)
    assert out.tolist() == [0, 5, 0, 4]
    assert counts.nonfinite_in
    assert not counts.nonfinite_out


@settings(max_examples=60)
@given(
    st.lists(st.tuples(*[st.integers(0, 65535)] * 3), min_size=1, max_size=40),
    st.sampled_from([BFLOAT16, FLOAT32]),
    st.booleans(),
)
def test_what_is_not_finite_is_seen_in_any_place(words, dtype, same_is_zero):
    """Any bits, of bfloat16 or of float32 with them on top: large changes whose squares overflow are finite still."""
    stored = np.array(words, np.uint16).T
    arrays = list(stored) if dtype is BFLOAT16 else list((stored.astype(np.uint32) << 16).view(np.float32))
    layout = Operands(dtype, (dtype,) * 2, True, same_is_zero=same_is_zero)
    kernel = merge_kernel(lambda xp, base, tau: base + xp.sum(tau), layout, {}, dtype)
    out = np.zeros(len(words), dtype.storage)
    found = kernel([np.ascontiguousarray(x) for x in arrays], out=out)
    assert found.nonfinite_in == any(not np.isfinite(decode(x, dtype)).all() for x in arrays)
    assert found.nonfinite_out == (not np.isfinite(decode(out, dtype)).all())


def test_reduce_kernels_take_masks_and_floats_alike():
    layout = Operands(None, (FLOAT32,), False)
    values = np.array([1, 0, -2, np.nan, 0], np.float32)
    assert reduce_kernel(lambda xp, b, w: w > 0, layout, {}, "count")([values]).counts.tolist() == [1]
    assert reduce_kernel(lambda xp, b, w: w, layout, {}, "count")([values]).counts.tolist() == [
        np.count_nonzero(values)
    ]
    assert reduce_kernel(lambda xp, b, w: w > 0, layout, {}, "sum")([values]).sums.tolist() == [[1.0]]


def test_several_measures_in_one_pass():
    def measures(xp, base, tau):
        return {"sums": [tau[0] * tau[1], base], "counts": [tau[0] != 0]}

    layout = Operands(BFLOAT16, (BFLOAT16,) * 2, True)
    arrays = tile(8, 1000, layout, special=False)
    found = reduce_kernel(measures, layout, {}, "several")(arrays)
    expected, _, deltas = on_numpy(measures, layout, arrays, {})
    assert found.counts.tolist() == [np.count_nonzero(deltas[0])]
    for total, terms in zip(found.sums[0], expected["sums"], strict=True):
        # float32 terms added in float64 by another order than NumPy's: n roundings of 2^-53 at most.
        assert total == pytest.approx(
            terms.sum(dtype=np.float64), rel=0, abs=float(1000 * 2.0**-53 * np.abs(terms).sum())
        )


def test_rows_of_whatever_a_formula_returns_on_numpy():
    row = np.arange(3.0)
    assert len(rows_of(np.ones((2, 3)))) == 2
    assert rows_of(row)[0] is row
    assert rows_of([row, row])[1] is row


def test_only_so_many_kernels_are_kept(monkeypatch):
    monkeypatch.setattr("rlmerge.kernels.program._kernels", {})
    monkeypatch.setattr("rlmerge.kernels.program.CACHED_KERNELS", 2)
    layout = Operands(FLOAT32, (FLOAT32,), True)

    def kernel(value):
        return merge_kernel(shifted, layout, {"by": (value,)}, FLOAT32)

    def shifted(xp, base, tau, *, by):
        return base + by[0]

    first, second = kernel(1), kernel(2)
    assert kernel(1) is first
    kernel(3)
    assert kernel(2) is second
    assert kernel(1) is not first


def chance(xp, base, weights, *, uniform, keep):
    return xp.where(uniform[0] < keep, 1.0, 0.0)


EDGES = [0.0, -0.0, -1.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 0.5, 0.3, 1 - 2.0**-24, 1.0, 2.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32, FLOAT64])
def test_numbers_drawn_below_a_limit(dtype):
    """As compared with the limit as floats; 0.3 has no equal among the 2^24 numbers that are drawn."""
    layout, values = Operands(None, (dtype,), False), {"uniform": Uniform(1), "keep": 0.5}
    drawn = uniform((11, 12), 5, 5000, layout.real)
    exact = float(drawn[1234])
    kernel = merge_kernel(chance, layout, values, FLOAT64 if dtype is FLOAT64 else FLOAT32)
    out = np.empty(5000, layout.real)
    for keep in (*EDGES, exact, np.nextafter(layout.real.type(exact), layout.real.type(1))):
        kernel([np.zeros(5000, dtype.storage)], out=out, start=5, params=[keep], keys=[(11, 12)])
        assert np.array_equal(out != 0, drawn < layout.real.type(keep)), keep
