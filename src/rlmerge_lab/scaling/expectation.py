"""What the metrics of a log-normal sparse vector must be, in closed form: no sampling, so any number of entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.extra import need


def gini_of_zero_share(zero_share: float, sigma: float = article.LOG_STD) -> float:
    """Gini of a vector of which ``zero_share`` is zero and the rest log-normal: ``1 - (1 - s)(1 - erf(sigma / 2))``.

    A log-normal's Gini is erf(sigma / 2); zeros scale its complement. It does not depend on the number of entries.
    """
    return 1.0 - (1.0 - zero_share) * (1.0 - math.erf(sigma / 2))


def zero_share_of_gini(gini: float, sigma: float = article.LOG_STD) -> float:
    """The share of zeros that gives this Gini: the inverse of :func:`gini_of_zero_share`."""
    return 1.0 - (1.0 - gini) / (1.0 - math.erf(sigma / 2))


def l0_of_zero_share(zero_share: float, entries: float, epsilon: float = 0.01, sigma: float = article.LOG_STD) -> float:
    """Expected L0 of the paper, share with ``|x| < epsilon * max|x|``, of such a vector with ``entries`` entries.

    Averages :func:`l0_at_quantile` over 1001 equal slices of the maximum's distribution.
    """
    slices = (np.arange(1001) + 0.5) / 1001
    return float(l0_at_quantile(zero_share, entries, slices, epsilon, sigma).mean())


def l0_at_quantile(
    zero_share: float, entries: Any, quantile: Any, epsilon: float = 0.01, sigma: float = article.LOG_STD
) -> npt.NDArray[np.float64]:
    """The paper's L0 when the largest magnitude sits at ``quantile`` of its own distribution (arrays broadcast).

    The largest of n normals is the normal quantile of U^(1/n), and the others lie below ``epsilon`` times it with
    probability Phi(z_max + ln(epsilon) / sigma). The mean of the log drops out: L0 does not see the scale.
    """
    normal: Any = need("scipy.stats").norm
    active = np.maximum((1.0 - zero_share) * np.asarray(entries, dtype=np.float64), 1.0)
    # Through the upper tail, because U^(1/n) rounds to 1 for large n.
    largest = normal.isf(-np.expm1(np.log(quantile) / active))
    return zero_share + (1.0 - zero_share) * normal.cdf(largest + math.log(epsilon) / sigma)
