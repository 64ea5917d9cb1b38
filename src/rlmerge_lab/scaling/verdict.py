"""A verdict on one printed statement: what the paper says, what we computed, and whether the two agree.

Our number comes from a study's result and is never copied from the paper, so a verdict can change when the computation
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """``IN_KIND``: the effect comes out, but the number depends on a choice the paper does not print."""

    REPRODUCED = "reproduced"
    IN_KIND = "reproduced in kind"
    NOT_REPRODUCED = "not reproduced"


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement, judged; ``reason`` says why, or what else the reader must know."""

    statement: str
    where: str
    paper: str
    ours: str
    verdict: Verdict
    reason: str


def printed(value: float, paper: float, digits: int) -> Verdict:
    """Reproduced when our number, rounded to the printed digits, is the printed number."""
    return holds(f"{value:.{digits}f}" == f"{paper:.{digits}f}")


def holds(test: object, as_: Verdict = Verdict.REPRODUCED) -> Verdict:
    """``as_`` when the test holds on our result, else not reproduced."""
    return as_ if test else Verdict.NOT_REPRODUCED


def in_kind(test: object) -> Verdict:
    """Reproduced in kind when the test holds on our result, else not reproduced."""
    return holds(test, Verdict.IN_KIND)


def percent(share: float, digits: int = 1) -> str:
    """0.9412 as ``94.1 %``."""
    return f"{100 * share:.{digits}f} %"


def plus_minus(mean: float, std: float, digits: int = 4) -> str:
    return f"{mean:.{digits}f} ± {std:.{digits}f}"
