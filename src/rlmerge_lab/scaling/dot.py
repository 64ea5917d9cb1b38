"""Inner products without BLAS: on short vectors its threads cost more than they bring, and its sums vary with them."""

from __future__ import annotations

from math import sqrt

import numpy as np

from rlmerge_lab.scaling.generator import Floats


def dot(a: Floats, b: Floats) -> float:
    """``sum a_i b_i`` of two vectors [d]."""
    return float(np.einsum("i,i->", a, b))


def norm(a: Floats) -> float:
    return sqrt(dot(a, a))


def cosine(a: Floats, b: Floats) -> float:
    """Cosine of two vectors [d]; NaN where one is zero."""
    norms = norm(a) * norm(b)
    return dot(a, b) / norms if norms else float("nan")
