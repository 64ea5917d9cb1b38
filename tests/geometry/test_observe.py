from itertools import combinations

import numpy as np
import pytest

from rlmerge.geometry.observe import Part, observe, parts
from rlmerge.kernels.namespace import NumpyNamespace


@pytest.mark.parametrize("experts", [1, 2, 3, 4, 5, 6, 9, 12])
def test_parts_see_every_expert_and_every_pair_once(experts):
    found = parts(experts)
    assert [part.members for part in found if part.single] == [tuple(range(experts))]
    pairs = [(part.members[a], part.members[b]) for part in found for a, b in part.pairs]
    assert sorted(pairs) == list(combinations(range(experts), 2))
    assert all(len(part.members) <= 4 for part in found if not part.single)


@pytest.mark.parametrize("careful", [False, True])
def test_the_formula_runs_on_numpy_too(careful):
    base, weights = np.ones(3, np.float32), np.array([[1, 2, 3], [1, 1, 0]], np.float32)
    part = Part((0, 1), True, ((0, 1),))
    found = observe(NumpyNamespace(), base, weights, part=(part.single, part.pairs), careful=careful)
    opposed = found["counts"][-1]
    assert opposed.tolist() == [False, False, True]
    assert [size.tolist() for size in found["values"]] == [[0, 1, 2], [0, 0, 1]]
    # Non-finite of base and each expert come first when careful.
    assert len(found["counts"]) == (3 if careful else 0) + 4 + 2 + 2 + 2 + 3
