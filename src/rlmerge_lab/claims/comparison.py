"""Several studies side by side: each deciding figure by the size of the models, with its trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlmerge.errors import RequestError

from . import judge
from .figure import Figure
from .trend import TREND_RULE, Trend, trend
from .verdict import Verdict

Result = Mapping[str, Any]

SCHEMA = "rlmerge.lab.comparison/1"


@dataclass(frozen=True, slots=True)
class Judged:
    """One study: its models' weights and vocabulary, and its verdicts by key."""

    profile: str
    weights: int
    vocabulary: int | None
    seeds: int
    verdicts: Mapping[str, Verdict]

    @classmethod
    def of(cls, where: str, study: Result) -> Judged:
        """A study's plain dict, judged; RequestError when it does not say how large its models are."""
        weights, vocabulary = study.get("parameters"), study.get("vocabulary")
        if not isinstance(weights, int) or weights < 1:
            hint = "Run the study again with this version: rlmerge lab study DIR"
            raise RequestError("does not say how many weights its models have", where=where, hint=hint)
        found = {verdict.key: verdict for verdict in judge(study).verdicts if verdict.tested}
        name = str(study.get("profile", "unknown"))
        return cls(name, weights, vocabulary, len(study.get("seeds") or ()), found)

    @property
    def label(self) -> str:
        """``words: 303,872 weights``."""
        return f"{self.profile}: {self.weights:,} weights"

    @property
    def words(self) -> str:
        """Its vocabulary in words, by which studies are put together."""
        return "unknown vocabulary" if self.vocabulary is None else f"vocabulary of {self.vocabulary:,} tokens"


@dataclass(frozen=True, slots=True)
class Line:
    """One deciding figure of a claim over the studies, None where one lacks it, and its trends by vocabulary."""

    key: str
    group: str
    claim: str
    name: str
    figures: tuple[Figure | None, ...]
    verdicts: tuple[str | None, ...]
    trends: Mapping[str, Trend]

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "claim": self.claim,
            "name": self.name,
            "figures": [None if figure is None else figure.to_dict() for figure in self.figures],
            "verdicts": list(self.verdicts),
            "trends": {words: found.to_dict() for words, found in self.trends.items()},
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Studies, small models of small vocabularies first, and a line for each deciding figure that two of them have."""

    studies: tuple[Judged, ...]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; schema ``rlmerge.lab.comparison/1``."""
        fields = ("profile", "weights", "vocabulary", "seeds")
        return {
            "schema": SCHEMA,
            "rule": TREND_RULE,
            "studies": [{field: getattr(study, field) for field in fields} for study in self.studies],
            "lines": [line.to_dict() for line in self.lines],
        }


def compare(studies: Sequence[tuple[str, Result]]) -> Comparison:
    """Judge ``studies``, plain dicts of schema ``rlmerge.lab.study/1`` with their names, and put figures side by side.

    Studies of one vocabulary are judged by the methods that all of them merged with, so that the best of several is the
    best of the same. Figures are the same by their claim: which method that is may differ. RequestError when a study
    does not say how large its models are.
    """
    found = sorted(
        (Judged.of(name, study) for name, study in _alike(studies)),
        key=lambda one: (one.vocabulary or 0, one.weights, one.profile),
    )
    known = {verdict.key: verdict for study in found for verdict in study.verdicts.values()}
    made = (_line(found, verdict, place) for verdict in known.values() for place in range(len(verdict.decides)))
    several = [line for line in made if len(line.figures) - line.figures.count(None) > 1]
    return Comparison(tuple(found), tuple(several))


def _alike(studies: Sequence[tuple[str, Result]]) -> list[tuple[str, Result]]:
    """The studies without merges by methods that another one of their vocabulary lacks."""
    shared: dict[Any, set[str]] = {}
    for _, study in studies:
        own = {row["method"] for row in study.get("merges", ())}
        shared[study.get("vocabulary")] = shared.get(study.get("vocabulary"), own) & own
    return [(name, _only(study, shared[study.get("vocabulary")])) for name, study in studies]


def _only(study: Result, methods: set[str]) -> Result:
    rows = [row for row in study.get("merges", ()) if row["method"] in methods]
    return {**study, "methods": [name for name in study.get("methods", ()) if name in methods], "merges": rows}


def _line(studies: Sequence[Judged], verdict: Verdict, place: int) -> Line:
    mine = [study.verdicts.get(verdict.key) for study in studies]
    figures = tuple(
        one.decides[place] if one and len(one.decides) > place and one.decides[place].differences else None
        for one in mine
    )
    names = dict.fromkeys(figure.name for figure in figures if figure)
    trends: dict[str, Trend] = {}
    for words in dict.fromkeys(study.words for study in studies):
        sized = [(s.weights, f) for s, f in zip(studies, figures, strict=True) if f and s.words == words]
        if len({weights for weights, _ in sized}) > 1:
            trends[words] = trend(sized)
    verdicts = tuple(None if one is None else str(one.outcome) for one in mine)
    return Line(verdict.key, verdict.group, verdict.claim, "; ".join(names), figures, verdicts, trends)
