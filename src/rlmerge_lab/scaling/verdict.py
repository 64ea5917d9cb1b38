"""A verdict on one printed statement: what the paper says, what we computed, and whether the two agree.

Rules are data. A rule's number is computed from a study's result, never copied from the paper, so a verdict can change
when the computation does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class Verdict(StrEnum):
    """``IN_KIND``: the effect comes out, but the number depends on a choice the paper does not print."""

    REPRODUCED = "reproduced"
    IN_KIND = "reproduced in kind"
    NOT_REPRODUCED = "not reproduced"


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement, judged."""

    statement: str
    where: str
    paper: str
    ours: str
    verdict: Verdict
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Rule(Generic[R]):
    """How to judge one statement from a result; ``reason`` says why, or what else the reader must know."""

    statement: str
    where: str
    paper: str
    ours: Callable[[R], str]
    verdict: Callable[[R], Verdict]
    reason: Callable[[R], str] = lambda result: ""

    def judge(self, result: R) -> Claim:
        return Claim(
            self.statement, self.where, self.paper, self.ours(result), self.verdict(result), self.reason(result)
        )


def judge(rules: Iterable[Rule[Any]], result: Any) -> tuple[Claim, ...]:
    """Every rule's verdict on ``result``, in order."""
    return tuple(rule.judge(result) for rule in rules)


def printed(value: Callable[[R], float], paper: float, digits: int) -> Callable[[R], Verdict]:
    """Reproduced when our number, rounded to the printed digits, is the printed number."""
    return lambda result: _either(f"{value(result):.{digits}f}" == f"{paper:.{digits}f}", Verdict.REPRODUCED)


def holds(test: Callable[[R], bool], as_: Verdict = Verdict.REPRODUCED) -> Callable[[R], Verdict]:
    """``as_`` when the test holds on our result, else not reproduced."""
    return lambda result: _either(bool(test(result)), as_)


def graded(test: Callable[[R], bool], in_kind: Callable[[R], bool]) -> Callable[[R], Verdict]:
    """Reproduced, else reproduced in kind, else not, by the first test that holds."""
    return lambda result: Verdict.REPRODUCED if test(result) else _either(bool(in_kind(result)), Verdict.IN_KIND)


def _either(condition: bool, verdict: Verdict) -> Verdict:
    return verdict if condition else Verdict.NOT_REPRODUCED
