import math

import numpy as np
import pytest
from scipy import stats

from rlmerge.geometry.definitions import DEFINITIONS
from rlmerge.geometry.figures import (
    chance_jaccard,
    chance_shared_exactly,
    overlap,
    shared_exactly,
    sparsity,
)
from rlmerge.geometry.measure import measure
from rlmerge.kernels.dtypes import FLOAT32

N = 4000


@pytest.fixture(scope="module")
def taus():
    rng = np.random.default_rng(0)
    return [(rng.standard_t(4, N) * (rng.random(N) < p) * 1e-3).astype(np.float32) for p in (0.3, 0.6, 0.5)]


@pytest.fixture(scope="module")
def seen(taus):
    # A base of zeros makes every task vector exactly the expert.
    return measure(np.zeros(N, np.float32), taus, [FLOAT32] * 4)


def test_sparsity_against_numpy_and_scipy(seen, taus):
    for k, tau in enumerate(taus):
        found, wide = sparsity(seen, k, "float32"), tau.astype(np.float64)
        assert found["unchanged_bits"].value == np.mean(tau == 0)
        assert found["small_absolute"].value == np.mean(np.abs(tau) <= np.float32(1e-5))
        # Float32 products, 2^-24 each.
        assert found["norm"].value == pytest.approx(np.linalg.norm(wide), rel=1e-6)
        kurtosis = found["kurtosis"]
        assert abs(kurtosis.value - stats.kurtosis(wide)) <= kurtosis.error + 1e-5 * stats.kurtosis(wide)
        top = np.sort(np.abs(wide))[-N // 20 :].sum() / np.abs(wide).sum()
        assert abs(found["top5_mass"].value - top) <= found["top5_mass"].error + 1e-12
        assert math.isnan(found["relative_norm"].value)  # the base is 0


def test_overlap_against_sets_and_numpy(seen, taus):
    a, b = (tau.astype(np.float64) for tau in taus[:2])
    found = overlap(seen, 0, 1, "float32")
    first, second = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    assert found["jaccard"].value == len(first & second) / len(first | second)
    p, q = len(first) / N, len(second) / N
    assert found["jaccard"].null == pytest.approx(p * q / (p + q - p * q))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    product = a * b
    assert found["cosine"].value == pytest.approx(a @ b / scale, rel=1e-5, abs=1e-9)
    assert found["cosine"].null_sd == pytest.approx(math.sqrt(np.sum(product**2)) / scale, rel=1e-6)
    assert found["sign_conflict"].value == np.sum(product < 0) / np.sum(product != 0)
    assert found["conflict_norm"].value == pytest.approx(np.linalg.norm(product[product < 0]), rel=1e-6)
    negative = -product[product < 0].sum()
    assert found["conflict_share"].value == pytest.approx(negative / np.abs(product).sum(), rel=1e-6)
    distance = np.linalg.norm(a - b) / math.sqrt(scale)
    assert found["distance"].value == pytest.approx(distance, rel=1e-6)


def test_the_null_of_the_cosine_is_that_of_random_signs(taus):
    a, b = (tau.astype(np.float64) for tau in taus[:2])
    rng = np.random.default_rng(1)
    cosines = [a @ (b * rng.choice([-1, 1], N)) / np.linalg.norm(a) / np.linalg.norm(b) for _ in range(2000)]
    found = overlap(measure(np.zeros(N, np.float32), taus[:2], [FLOAT32] * 3), 0, 1, "float32")["cosine"]
    # The standard deviation of 2000 draws has a relative standard error of 1.6 %.
    assert found.null_sd == pytest.approx(np.std(cosines), rel=0.07)


def test_sharing_and_its_chance(seen, taus):
    times = sum((tau != 0).astype(int) for tau in taus)
    changed = [np.mean(tau != 0) for tau in taus]
    for k, tau in enumerate(taus):
        expected = [np.mean(times[tau != 0] == j) for j in (1, 2, 3)]
        assert shared_exactly(seen, k) == pytest.approx(expected)
        # These supports are independent; 4 standard deviations of a share of at least 1200 draws.
        assert chance_shared_exactly(changed, k) == pytest.approx(expected, abs=0.06)


def test_chance_by_hand():
    assert chance_jaccard(0.5, 0.5) == pytest.approx(1 / 3)
    assert chance_shared_exactly([0.5, 0.5, 0.25], 0) == pytest.approx((0.375, 0.5, 0.125))
    assert math.isnan(chance_jaccard(0.0, 0.0))


def test_an_expert_equal_to_the_base_gives_nan_and_not_a_flattering_number():
    base = np.ones(8, np.float32)
    seen = measure(base, [base, base], [FLOAT32] * 3)
    alone, pair = sparsity(seen, 0, "float32"), overlap(seen, 0, 1, "float32")
    assert alone["unchanged_bits"].value == 1.0
    assert alone["relative_norm"].value == 0.0
    for figure in (alone["gini"], alone["kurtosis"], alone["top1_mass"], pair["jaccard"], pair["cosine"]):
        assert math.isnan(figure.value)
    assert math.isnan(pair["conflict_share"].value) and math.isnan(shared_exactly(seen, 0)[0])


def test_every_figure_is_defined_and_says_its_dtype(seen):
    for found in (sparsity(seen, 0, "float32"), overlap(seen, 0, 1, "float32")):
        for key, figure in found.items():
            assert figure.definition is DEFINITIONS[key]
            assert figure.to_dict()["dtype"] == "float32"
            assert figure.to_dict()["status"] in ("exact", "second-hand", "ours")
            if figure.definition.null and key not in ("gini", "kurtosis"):
                assert figure.null is not None
