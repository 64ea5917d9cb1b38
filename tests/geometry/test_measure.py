import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.geometry.measure import measure
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, decode
from rlmerge.kernels.rounding import encode

COUNTS = ["entries", "nonfinite", "active", "active_alone", "shared_by", "joint", "joint_active", "opposed", "near"]
SUMS = ["base_square", "total", "square", "cube", "product_size", "opposed_size", "product_square", "opposed_square"]


def bf16(values) -> np.ndarray:
    """Values as stored bfloat16 (uint16)."""
    return encode(np.asarray(values, np.float32), BFLOAT16)


def slowly(base: np.ndarray, experts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The fields of an observation straight from the definitions, in float64, one coordinate after the other."""
    k, n = len(experts), len(base)
    zero, pair = np.zeros(k), np.zeros((k, k))
    names = ["nonfinite", "base_nonfinite", "active", "active_alone", "near", "base_square", "total", "square", "cube"]
    found = {name: zero.copy() for name in names} | {"entries": np.full(k, n), "shared_by": pair.copy()}
    names = ["joint", "joint_active", "opposed", "product_size", "opposed_size", "product_square", "opposed_square"]
    found |= {name: pair.copy() for name in names}
    found["base_square"] += sum(float(x) ** 2 for x in base if np.isfinite(x))
    found["base_nonfinite"] += sum(not np.isfinite(x) for x in base)
    for i in range(n):
        ok = [bool(np.isfinite(base[i]) and np.isfinite(e[i])) for e in experts]
        tau = [float(e[i]) - float(base[i]) if good else 0.0 for e, good in zip(experts, ok, strict=True)]
        changed, active = [t != 0 for t in tau], [abs(t) > np.float32(1e-5) for t in tau]
        for a in range(k):
            found["nonfinite"][a] += not ok[a]
            found["active"][a] += active[a]
            found["active_alone"][a] += active[a] and sum(active) == 1
            found["near"][a] += ok[a] and abs(tau[a]) <= 1e-3 * max(abs(base[i]), abs(experts[a][i]))
            found["total"][a] += tau[a]
            found["square"][a] += tau[a] ** 2
            found["cube"][a] += tau[a] ** 3
            if changed[a]:
                found["shared_by"][a, sum(changed) - 1] += 1
        for a, b in itertools.combinations(range(k), 2):
            c = tau[a] * tau[b]
            found["joint"][a, b] += changed[a] and changed[b]
            found["joint_active"][a, b] += active[a] and active[b]
            found["opposed"][a, b] += c < 0
            found["product_size"][a, b] += abs(c)
            found["opposed_size"][a, b] += max(-c, 0)
            found["product_square"][a, b] += c * c
            found["opposed_square"][a, b] += min(c, 0) ** 2
    return found


def decoded(stored: np.ndarray) -> np.ndarray:
    """bfloat16 storage as float32."""
    return decode(stored, BFLOAT16)


def models(rng, k, n, changed=0.5):
    base = bf16(rng.standard_normal(n) * 0.02)
    steps = [np.where(rng.random(n) < changed, rng.integers(-3, 4, n), 0) for _ in range(k)]
    return base, [(base.astype(np.int64) + step).astype(np.uint16) for step in steps]


def check(found, expected):
    for name in COUNTS:
        assert np.array_equal(getattr(found, name), expected[name]), name
    for name in SUMS:
        # Terms are float32 products (2^-24 each, up to three of them), added in float64; the sum of cubes and of the
        # signed values may cancel, so it is compared on the scale of the terms.
        scale = 1e-6 * np.sqrt(expected["square"].max()) ** (3 if name == "cube" else 1)
        assert np.allclose(getattr(found, name), expected[name], rtol=1e-6, atol=scale if name in SUMS[1:4] else 0), (
            name
        )


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7])
def test_equals_the_definitions(k):
    base, experts = models(np.random.default_rng(k), k, 203)
    found = measure(base, experts, [BFLOAT16] * (k + 1))
    check(found, slowly(decoded(base), [decoded(e) for e in experts]))
    assert [m.count for m in found.magnitudes] == found.changed.tolist()
    assert all(m.is_exact for m in found.magnitudes)


def test_by_hand():
    base = bf16([1.0, 1.0, 1.0, 1.0, 0.0])
    first, second = bf16([1.0, 1.5, 2.0, 1.0, -0.0]), bf16([1.0, 0.5, 1.0, 3.0, 0.0])
    found = measure(base, [first, second], [BFLOAT16] * 3)
    assert found.shared_by.tolist() == [[1, 1], [1, 1]]
    assert found.exactly.tolist() == [2, 1]
    assert found.changed.tolist() == [2, 2]
    assert (found.opposed[0, 1], found.opposed_size[0, 1], found.opposed_square[0, 1]) == (1, 0.25, 0.0625)
    assert found.gram.tolist() == [[1.25, -0.25], [-0.25, 4.25]]
    assert found.near.tolist() == [3, 3]
    assert found.base_square.tolist() == [4.0, 4.0]


def test_twelve_experts_agree_with_pairs_taken_alone():
    base, experts = models(np.random.default_rng(1), 12, 500)
    found = measure(base, experts, [BFLOAT16] * 13)
    for a, b in ((0, 1), (0, 11), (4, 7), (10, 11)):
        alone = measure(base, [experts[a], experts[b]], [BFLOAT16] * 3)
        assert found.joint[a, b] == alone.joint[0, 1]
        assert found.gram[a, b] == pytest.approx(alone.gram[0, 1], rel=1e-12)
    times = sum((decoded(e) != decoded(base)).astype(int) for e in experts)
    assert found.exactly.tolist() == [int((times == j).sum()) for j in range(1, 13)]


@pytest.mark.parametrize("k", [2, 5])
def test_nan_and_infinity_are_counted_and_left_out(k):
    base, experts = models(np.random.default_rng(2), k, 100)
    base[7], experts[0][3], experts[1][50] = 0x7FC0, 0x7F80, 0xFF80
    found = measure(base, experts, [BFLOAT16] * (k + 1))
    check(found, slowly(decoded(base), [decoded(e) for e in experts]))
    assert found.base_nonfinite.tolist() == [1] * k
    assert found.finite.tolist()[:2] == [98, 98]
    assert np.isfinite(found.gram).all()


@pytest.mark.parametrize("dtype", [FLOAT16, FLOAT32, FLOAT64])
def test_other_element_types(dtype):
    rng = np.random.default_rng(3)
    base = (rng.standard_normal(300) * 0.02).astype(dtype.storage)
    experts = [np.where(rng.random(300) < 0.5, base, base * 1.25 + 1e-3).astype(dtype.storage) for _ in range(2)]
    found = measure(base, experts, [dtype] * 3)
    real = dtype.arithmetic
    check(found, slowly(base.astype(real), [e.astype(real) for e in experts]))


def test_mixed_element_types_compare_values():
    base = np.array([1.0, 1.00390625, 2.0], np.float32)
    found = measure(base, [bf16([1.0, 1.0, 2.0])], [FLOAT32, BFLOAT16])
    assert found.changed.tolist() == [1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 90), max_size=4), st.integers(2, 3))
def test_chunks_add_up_to_the_whole_in_any_order(seed, cuts, k):
    base, experts = models(np.random.default_rng(seed), k, 90)
    edges = [0, *sorted(cuts), 90]
    ranges = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    found = [measure(base[a:b], [e[a:b] for e in experts], [BFLOAT16] * (k + 1)) for a, b in ranges]
    np.random.default_rng(seed).shuffle(found)
    whole, total = measure(base, experts, [BFLOAT16] * (k + 1)), found[0]
    for part in found[1:]:
        total = total + part
    for name in COUNTS:
        assert np.array_equal(getattr(total, name), getattr(whole, name)), name
    for name in SUMS:  # float64 sums of the same terms in another order
        assert np.allclose(getattr(total, name), getattr(whole, name), rtol=1e-12, atol=1e-15), name
    for mine, theirs in zip(total.magnitudes, whole.magnitudes, strict=True):
        assert np.array_equal(mine.table.counts, theirs.table.counts)


def test_placed_among_more_experts():
    base, experts = models(np.random.default_rng(4), 2, 64)
    small = measure(base, experts, [BFLOAT16] * 3)
    wide = small.placed([0, 2], 3)
    assert wide.changed.tolist() == [small.changed[0], 0, small.changed[1]]
    assert wide.joint[0, 2] == small.joint[0, 1]
    assert wide.exactly.tolist()[:2] == small.exactly.tolist()
    assert wide.entries.tolist() == [64, 0, 64]
    assert [m.count for m in wide.magnitudes] == wide.changed.tolist()
