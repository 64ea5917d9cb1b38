"""A claim, whose it is, and its verdict by a rule that is stated before any figure is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .figure import LEVEL, MIN_SEEDS, Figure, Margin, Outcome, Side, bounds

ENOUGH = "“Enough is as good as a feast” (arXiv 2607.22039)"
CURSE = "“Sparsity Curse” (arXiv 2606.18521)"
RAM = "RAM (arXiv 2601.13572)"
SCF = "SCF-RKL (arXiv 2602.11717)"
SCALE = "“Does Sparsity Persist?”"
OURS = "the hypothesis of this laboratory's second edition, no source's own claim"
CANDIDATE = "a candidate explanation of the contradiction, no source's own claim"

GAIN = Margin(0.02, "share")
"""Of an expert's gain over the base."""
RETENTION = Margin(0.01, "share")
SCORE = Margin(0.005, "share")
MATCHED_SCORE = Margin(0.02, "share")
"""Of pass@1, for experts that count as equally accurate."""
UNCHANGED = Margin(0.02, "share")
CONFLICT = Margin(0.02, "share")
REPETITION = Margin(0.01, "share")
TOKENS = Margin(0.05, "share")
"""Of the tokens that distillation from the base generates."""
COSINE = Margin(0.1)
COSINE_GAP = Margin(0.02)
RELATIVE_NORM = 0.1
"""Of the mean of the side compared with."""

SIZE = "One small architecture and short tasks: what changes with size or with long reasoning is not seen here."
DTYPE = "Weights are stored in bfloat16; other types and optimisers change the share of unchanged weights."
RECONSTRUCTED = (
    "The method is our reconstruction of an outline, so this does not judge the authors' code, and a small model on "
    "short tasks does not judge their benchmarks."
)

UNTESTED = (
    "RL updates avoid the base's principal directions.",
    "Sparsity grows with model size.",
    "The attention updates are sparser than those of the feed-forward layers.",
    "Merging saves training cost.",
)
"""What the sources also claim and no study of the laboratory holds a figure for."""


RULE = (
    f"A figure is a difference within seeds; its interval is Student's t over seeds at {100 * LEVEL:g} %. A claim is "
    "supported when the interval of each of its deciding figures lies on the claimed side of 0. It is not supported "
    "when one of them lies on the other side of 0, or wholly within the stated margin of 0, where a difference is too "
    "small to count. A figure that is claimed to be near 0 is judged by its margin alone: within it, outside it, or "
    "across it. A figure that is claimed not to be above 0 is supported when its interval ends below the margin, and "
    "not supported when it lies above 0 and reaches beyond the margin. Everything else, and fewer than "
    f"{MIN_SEEDS} seeds, is undecided here. Claims whose deciding figures hold nothing, or 0 on both sides "
    "everywhere, are not judged but listed as not tested."
)
ADJUSTMENT = (
    "These verdicts take every claim by itself. The adjusted ones take all deciding figures together: a difference "
    "must hold after Holm's correction, and a margin for the Bonferroni interval."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim of a source, judged. ``decides`` are the figures of the rule, ``beside`` are shown and decide nothing.

    ``control`` says what was held equal, and ``controls`` are the figures that show whether it was; ``cannot_say`` is
    what this laboratory cannot tell. ``moot`` makes a claim on the cause of an effect undecided where there is none.
    """

    key: str
    group: str
    claim: str
    source: str
    decides: tuple[Figure, ...]
    control: str
    cannot_say: str
    controls: tuple[Figure, ...] = ()
    beside: tuple[Figure, ...] = ()
    moot: str = ""

    @property
    def tested(self) -> bool:
        """Whether a deciding figure holds anything; where none does, or all of it is 0, there is nothing to judge."""
        return any(figure.differences for figure in self.decides)

    @property
    def outcome(self) -> Outcome:
        """The verdict, no other claim considered."""
        return self._all(lambda figure: figure.outcome)

    @property
    def adjusted(self) -> Outcome:
        """The verdict among all claims of the study."""
        return self._all(lambda figure: figure.adjusted)

    def _all(self, read: Callable[[Figure], Outcome]) -> Outcome:
        found = {read(figure) for figure in self.decides}
        if self.moot or found == {Outcome.UNDECIDED}:
            return Outcome.UNDECIDED
        if Outcome.NOT_SUPPORTED in found:
            return Outcome.NOT_SUPPORTED
        return Outcome.UNDECIDED if Outcome.UNDECIDED in found else Outcome.SUPPORTED

    @property
    def reason(self) -> str:
        """Why this verdict, in words; its numbers are those of the figures."""
        if self.moot:
            return self.moot
        outcomes = {figure.outcome for figure in self.decides}
        if len(outcomes) > 1:
            return "The deciding figures differ: " + "; ".join(f"{f.name}, {f.outcome}" for f in self.decides) + "."
        return " ".join(dict.fromkeys(_reason(figure) for figure in self.decides))

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "group": self.group,
            "claim": self.claim,
            "source": self.source,
            "verdict": str(self.outcome),
            "adjusted": str(self.adjusted),
            "reason": self.reason,
            "control": self.control,
            "cannot_say": self.cannot_say,
            "decides": [figure.to_dict() for figure in self.decides],
            "controls": [figure.to_dict() for figure in self.controls],
            "beside": [figure.to_dict() for figure in self.beside],
        }


def adjust(verdicts: Sequence[Verdict]) -> tuple[tuple[Verdict, ...], int]:
    """The verdicts with Holm's p and wide intervals in their deciding figures, and how many comparisons that are.

    Claims that read one comparison in opposite directions count it once (S. Holm, Scand. J. Statist. 6:65, 1979).
    """
    known = {f.name: f.p for verdict in verdicts for f in verdict.decides if f.p is not None}
    holm: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(known.items(), key=lambda entry: entry[1])):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        holm[name] = largest

    def complete(figure: Figure) -> Figure:
        if figure.name not in holm:
            return figure
        wide = bounds(figure.differences, 1 - (1 - LEVEL) / len(known))
        return replace(figure, p_holm=holm[figure.name], wide=wide)

    return tuple(replace(v, decides=tuple(map(complete, v.decides))) for v in verdicts), len(known)


def _reason(figure: Figure) -> str:
    """In words, what made a figure's outcome."""
    if figure.bounds is None:
        return f"No interval: {figure.empty}."
    if figure.side is Side.NEAR:
        return {
            Outcome.SUPPORTED: "The interval lies within the margin of 0.",
            Outcome.NOT_SUPPORTED: "The interval lies outside the margin of 0.",
            Outcome.UNDECIDED: "The interval crosses the margin of 0.",
        }[figure.outcome]
    if figure.side is Side.NOT_ABOVE:
        return {
            Outcome.SUPPORTED: "The interval ends below the margin.",
            Outcome.NOT_SUPPORTED: "The interval lies above 0 and reaches beyond the margin.",
            Outcome.UNDECIDED: "The interval holds 0 and reaches beyond the margin.",
        }[figure.outcome]
    if figure.outcome is Outcome.SUPPORTED:
        return "The interval lies on the claimed side of 0."
    if figure.outcome is Outcome.UNDECIDED:
        return "The interval holds 0 and reaches beyond the margin."
    if not figure.within_margin:
        return "The interval lies on the other side of 0."
    apart = "" if figure.holds_zero else ": a difference, but one too small to count"
    return f"The interval lies within the margin of 0{apart}."
