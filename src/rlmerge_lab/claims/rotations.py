"""Whether a method must see more than one coordinate at a time: entrywise methods, methods that look at inputs or
subspaces, and the program's own, each against task arithmetic with a tuned coefficient."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import AVERAGING, TUNABLE, Study, seed_means
from .figure import Figure, Margin, Side, difference, mean
from .verdict import GAIN, OURS, RETENTION, SCORE, SIZE, Verdict

OWN = "covariance"
"""The program's own method, with inputs that it reads off the experts' changes."""
ENTRYWISE = ("coordinates", "signs", "sensitivities")
ROTATIONS = ("inputs", "subspaces")
RIVALS = {"tsv": ("TSV-Merge", ("tsv",)), "regmean": ("RegMean", ("regmean", "regmean:sum")),
          "actmat": ("ACTMat", ("actmat",))}  # fmt: skip
"""Key, name, and the candidates of which the better one on dev is the rival."""
REAL_VOCABULARY = 1000
"""Tokens from which a vocabulary counts as a real one: subwords, not characters."""

TUNED = (
    "The same experts; scale and main parameter of every method tuned on dev with one budget of trials, and the "
    "methods that are compared chosen on dev, so that test chooses nothing."
)


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Entrywise methods and rotations against tuned task arithmetic; the own method against it and against rivals."""
    return (*_families(study), *_rivals(study), *_reach(study), _drift(study))


def best_on_dev(study: Study, names: Sequence[str]) -> str | None:
    """The one of ``names`` whose tuned merges of RL experts have the best mean over seeds on dev."""
    on_dev = {
        name: mean(list(seed_means(cells).values()))
        for name in names
        if (cells := study.merge("rl", name, "tuned", "dev"))
    }
    return max(on_dev, key=lambda name: on_dev[name], default=None)


def against(study: Study, method: str, other: str, side: Side = Side.ABOVE) -> Figure:
    """Gain kept on test by two tuned methods on RL experts."""
    return difference(
        f"gain kept, rl, tuned, {method} − {other}",
        study.merge("rl", method, "tuned"), study.merge("rl", other, "tuned"), side, GAIN,
    )  # fmt: skip


def _families(study: Study) -> list[Verdict]:
    entrywise = [name for name in study.looking_at(*ENTRYWISE) if name not in (TUNABLE, AVERAGING)]
    rotations = [name for name in study.looking_at(*ROTATIONS) if name.partition(":")[0] != OWN]
    return [
        _family(
            study, "entrywise", "Methods that decide weight by weight do not beat tuned task arithmetic.", entrywise,
            "an entrywise method", Side.NOT_ABOVE,
        ),
        _family(
            study, "rotations", "Published methods that look at inputs or subspaces beat tuned task arithmetic.",
            rotations, "a method that looks at inputs or subspaces", Side.ABOVE,
        ),
    ]  # fmt: skip


def _family(study: Study, key: str, claim: str, names: Sequence[str], words: str, side: Side) -> Verdict:
    best = best_on_dev(study, names)
    decides = against(study, best or words, TUNABLE, side)
    rest = [against(study, name, TUNABLE, side) for name in names if name != best]
    chosen = f" The best of {len(names)} on dev is {best}." if best else ""
    return Verdict(
        key, "rotations", claim, OURS, (decides,), f"{TUNED}{chosen}", SIZE,
        beside=tuple(figure for figure in rest if figure.differences),
    )  # fmt: skip


def _rivals(study: Study) -> list[Verdict]:
    found = [
        Verdict(
            "own-arithmetic", "rotations", f"The method {OWN} beats tuned task arithmetic.", OURS,
            (against(study, OWN, TUNABLE),), TUNED, SIZE, beside=_beside(study),
        )
    ]  # fmt: skip
    for key, (words, names) in RIVALS.items():
        rival = best_on_dev(study, names) or names[0]
        found.append(
            Verdict(
                f"own-{key}", "rotations", f"The method {OWN} beats tuned {words}.", OURS,
                (against(study, OWN, rival),), TUNED, SIZE,
                beside=tuple(
                    figure for name in names if name != rival and (figure := against(study, OWN, name)).differences
                ),
            )
        )  # fmt: skip
    return found


def _beside(study: Study) -> tuple[Figure, ...]:
    """The own method against task arithmetic as it comes, at one norm, by other scores, on pairs and in other arms."""

    def gap(words: str, arm: str, rule: str, field: str = "gain_kept", unit: Margin = GAIN) -> Figure:
        first, second = (study.merge(arm, method, rule, field) for method in (OWN, TUNABLE))
        return difference(f"{words}, {OWN} − {TUNABLE}", first, second, Side.ABOVE, unit)

    first, second = (study.merge("rl", method, "tuned", pairs=True) for method in (OWN, TUNABLE))
    figures = [
        gap("gain kept, rl, at matched norm", "rl", "matched"),
        gap("retention, rl, tuned", "rl", "tuned", "retention", RETENTION),
        gap("pass@1 of the merge, rl, tuned", "rl", "tuned", "score", SCORE),
        difference(f"gain kept, rl, tuned, pairs, {OWN} − {TUNABLE}", first, second, Side.ABOVE, GAIN),
        *(gap(f"gain kept, {arm}, tuned", arm, "tuned") for arm in study.arms if arm != "rl"),
    ]
    return tuple(figure for figure in figures if figure.differences)


def _reach(study: Study) -> list[Verdict]:
    """Where the advantage over tuned task arithmetic holds: with a real vocabulary, and beyond layer 0."""
    advantage = against(study, OWN, TUNABLE)
    real, known = advantage, study.vocabulary
    if known is None or known < REAL_VOCABULARY:
        size = "is not known" if known is None else f"has {known} tokens"
        what = f"the vocabulary {size}, and a real one has {REAL_VOCABULARY:,} or more"
        real = Figure(f"{advantage.name}, real vocabulary", Side.ABOVE, GAIN, empty=what)
    tuned = study.merge("rl", TUNABLE, "tuned")
    outside, inside = (
        difference(f"gain kept, rl, tuned, {OWN} {words} and {TUNABLE} elsewhere − {TUNABLE}",
                   study.part("rl", OWN, part, 0), tuned, Side.ABOVE, GAIN)
        for part, words in (("rest", "outside layer 0"), ("layer", "in layer 0"))
    )  # fmt: skip
    none = advantage.bounds is not None and advantage.bounds[0] <= 0
    return [
        Verdict(
            "own-vocabulary", "rotations",
            f"The advantage of {OWN} over tuned task arithmetic survives a real vocabulary.", OURS, (real,),
            f"{TUNED} A vocabulary of {REAL_VOCABULARY:,} tokens or more, which the tasks share.",
            f"The vocabulary is real and the tasks are still short. {SIZE}",
        ),
        Verdict(
            "own-layers", "rotations",
            f"The advantage of {OWN} over tuned task arithmetic is not confined to layer 0.", OURS, (outside,),
            "Both merges as tuned; only tensors are exchanged: task arithmetic in decoder layer 0, the method in all "
            "other layers, embeddings, norms and the head.",
            f"Both halves were tuned as wholes, so a half by itself may be at another scale than its best. {SIZE}",
            beside=tuple(figure for figure in (inside,) if figure.differences),
            moot="The method has no advantage that could be placed." if none else "",
        ),
    ]  # fmt: skip


def _drift(study: Study) -> Verdict:
    """Held tasks where the study has some; tasks outside each pair where it has not."""
    figures: list[Figure] = []
    for pairs, words in ((False, "held tasks"), (True, "tasks outside a pair")):
        for rule, how in (("tuned", "tuned"), ("matched", "at matched norm")):
            first, second = (
                study.merge("rl", method, rule, "off_task", pairs=pairs) for method in (OWN, TUNABLE)
            )  # fmt: skip
            name = f"change of pass@1 on {words}, rl, {how}, {OWN} − {TUNABLE}"
            figures.append(difference(name, first, second, Side.ABOVE, SCORE))
    known = [figure for figure in figures if figure.differences]
    decides = next((figure for figure in figures[::2] if figure.differences), figures[0])
    return Verdict(
        "own-drift", "rotations", f"Off task, merges by {OWN} lose less than those by tuned task arithmetic.", OURS,
        (decides,),
        f"{TUNED} Off task are tasks of the base that no merged expert was trained on; nothing was tuned on them.",
        SIZE, beside=tuple(figure for figure in known if figure is not decides),
    )  # fmt: skip
