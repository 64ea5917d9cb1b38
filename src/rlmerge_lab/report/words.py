"""What a study says in words: every number in a sentence is a number of the study or of its verdicts.

First the study as a whole, then one verdict or one figure in a line, with its interval and its test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlmerge.report.tables import amount, interval_text

Result = Mapping[str, Any]

MARKS = {"supported": "✓", "not supported": "✗", "undecided here": "·"}
LEVELS = {"supported": "good", "not supported": "problem", "undecided here": "info"}

GROUPS = {
    "merging": "Do RL experts merge better or worse than supervised ones?",
    "dilution": "Does dilution explain it?",
    "rounding": "Does bfloat16 explain it?",
    "supervised": "Does unmatched training explain it?",
    "factors": "The three factors",
    "geometry": "The updates themselves",
    "landscape": "The score around an expert",
    "rotations": "Coordinates or rotations: methods on RL experts",
    "methods": "Single methods on RL experts",
    "students": "Merge or distil?",
    "health": "Repetition",
}

RULES = {"default": "as they come", "tuned": "tuned on dev", "matched": "at matched norm"}

SCORES = {
    "exact": "Scores are exact: pass@1 is the probability that a sample at temperature 1 is right, not a count.",
    "sampled": "Scores are shares of right answers among sampled ones, so they carry sampling noise.",
}
"""How the scores of a study came about; ``exact`` unless the study's ``scores`` says otherwise."""

ARMS = {
    "rl": "RL, float32 master weights",
    "rl-bf16": "RL, weights kept in bfloat16",
    "sft": "SFT on the teacher's answers, RL's learning rate, stopped at RL's accuracy",
    "sft-high-lr": "the same at ten times the learning rate",
    "rft": "SFT on the base's own correct samples, stopped at RL's accuracy",
    "rl-positive": "RL on its positive samples alone",
    "sft-long": "SFT on the teacher's answers for a fixed long time",
    "rl-constant": "RL with advantages of +1 and −1, whatever share of a group is right",
    "rl-kl": "RL with a KL penalty to the base",
}


def headline(study: Result) -> str:
    """``Profile full: 5 seeds, 7 arms, 5 tasks, 26 methods``."""
    parts = [_count(len(study.get(key) or ()), word[:-1]) for key, word in _COUNTED.items()]
    return f"Profile {study.get('profile', 'unknown')}: {', '.join(parts)}"


_COUNTED = {"seeds": "seeds", "arms": "arms", "tasks": "tasks", "methods": "methods"}


def scoring(study: Result) -> str:
    """A sentence on what the scores are."""
    kind = str(study.get("scores", "exact"))
    return SCORES.get(kind, f"Scores are {kind}.")


def facts(study: Result) -> list[tuple[str, str]]:
    """What was run, on what, by which versions, at which cost."""
    spent = study.get("cpu_seconds") or {}
    parts = ", ".join(f"{name} {seconds / 3600:.2f}" for name, seconds in spent.items())
    hours = study.get("cpu_hours")
    cost = "unknown" if hours is None else f"{hours:.2f}" + (f" ({parts})" if parts else "")
    if study.get("cpu_at_most"):
        cost = f"at most {cost}: training was timed by the clock, with other work beside it"
    weights = study.get("parameters")
    rows = [
        ("command", str(study.get("command", "unknown"))),
        ("profile", str(study.get("profile", "unknown"))),
        ("seeds", _listed(study.get("seeds"))),
        ("tasks", _listed(study.get("tasks"))),
        *([("held tasks, of no expert", _listed(study["held"]))] if study.get("held") else []),
        ("arms", _listed(study.get("arms"))),
        ("weights of a model", f"{weights:,}" if isinstance(weights, int) else str(weights or "unknown")),
        *([("tokens of the vocabulary", f"{study['vocabulary']:,}")] if study.get("vocabulary") else []),
        ("trials a method is tuned with", str(study.get("trials", "unknown"))),
        ("CPU hours", cost),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted((study.get("versions") or {}).items()))),
    ]
    for reason, methods in _by_reason(study.get("skipped") or ()).items():
        rows.append((f"left out: {reason}", ", ".join(methods)))
    return rows


def _by_reason(skipped: Iterable[Result]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in skipped:
        found.setdefault(f"{row['reason']} (sets of {row['experts']})", []).append(row["method"])
    return found


def tally(judged: Result) -> str:
    """``30 claims: 12 supported, 9 not supported, 9 undecided here``."""
    counts = Counter(verdict["verdict"] for verdict in judged["verdicts"])
    parts = [f"{counts[name]} {name}" for name in MARKS if counts[name]]
    return f"{_count(len(judged['verdicts']), 'claim')}: {', '.join(parts)}"


def many(judged: Result) -> str:
    """How many comparisons decided, and how many verdicts change when all are taken together."""
    count, verdicts = judged["comparisons"], judged["verdicts"]
    changed = sum(verdict["verdict"] != verdict["adjusted"] for verdict in verdicts)
    if not count:
        return "No comparison has enough seeds to decide anything."
    return (
        f"{_count(count, 'comparison')} {'decides' if count == 1 else 'decide'} these verdicts. Intervals and verdicts "
        f"are unadjusted; taken together, {changed or 'none'} of {len(verdicts)} verdicts "
        f"{'becomes' if changed == 1 else 'become'} undecided."
    )


def answers(judged: Result) -> list[str]:
    """The open question in a sentence for each condition; empty where the study cannot speak to it."""
    found = {verdict["key"]: verdict for verdict in judged["verdicts"]}
    lines: list[str] = []
    for key, words in (
        ("averaging", "Averaged"),
        ("tuned", "With every method tuned on dev, over all methods"),
        ("matched-norm", "With task arithmetic at equal norm of the merged update"),
    ):
        better, worse = found.get(f"better-{key}"), found.get(f"worse-{key}")
        figure = better["decides"][0] if better else None
        if better is None or worse is None or figure is None or figure["a"] is None or figure["b"] is None:
            continue
        lines.append(
            f"{words}, RL experts keep {amount(figure['a'], True)} of their gain and accuracy-matched SFT experts "
            f"{amount(figure['b'], True)}: a difference of {difference(figure)}. {_comparison(better, worse)}"
        )
    return lines


def method_answers(judged: Result) -> list[str]:
    """What the study says on methods for RL experts, in a sentence for each comparison that it holds."""
    found = {verdict["key"]: verdict for verdict in judged["verdicts"]}
    lines: list[str] = []
    for key, words in _METHOD_ANSWERS.items():
        verdict = found.get(key)
        figure = verdict["decides"][0] if verdict else None
        if verdict is None or figure is None or figure["a"] is None or figure["b"] is None:
            continue
        one, other = figure["name"].rpartition(", ")[2].split(" − ")[:2]
        if key == "own-drift":
            values = f"changes pass@1 by {points(figure['a'])} points and {other} by {points(figure['b'])}"
        else:
            values = f"keeps {amount(figure['a'], True)} of the experts' gain and {other} {amount(figure['b'], True)}"
        gap = f"a difference of {difference(figure)}"
        lines.append(f"{words}, {one} {values}: {gap}. “{verdict['claim']}”: {verdict['verdict']}.")
    return lines


_METHOD_ANSWERS = {
    "entrywise": "Of the methods that decide weight by weight, the best on dev",
    "rotations": "Of the published methods that look at inputs or subspaces, the best on dev",
    "own-arithmetic": "Of this program",
    "own-drift": "Off task",
}


def question(study: Result) -> str:
    """What a study asks: RL against supervised experts, or methods on RL experts where there are no others."""
    if {"rl", "sft"} <= set(study.get("arms") or ()):
        return "Do RL experts merge better or worse than supervised ones?"
    return "What merges RL experts best?"


def _comparison(better: Result, worse: Result) -> str:
    if better["verdict"] == "supported":
        return "RL merges better here."
    if worse["verdict"] == "supported":
        return "RL merges worse here."
    if better["verdict"] == worse["verdict"] == "not supported":
        return "That is no difference by the stated margin."
    return f"That decides nothing: {_lower(better['reason'])}"


def grouped(judged: Result) -> list[tuple[str, list[Result]]]:
    """The verdicts under the headings of the report."""
    found = [(title, [v for v in judged["verdicts"] if v["group"] == group]) for group, title in GROUPS.items()]
    return [(title, verdicts) for title, verdicts in found if verdicts]


def _listed(values: Sequence[object] | None) -> str:
    return ", ".join(str(value) for value in values or ()) or "none"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


SHOWN_BESIDE = 4
"""Figures beside a verdict that are listed one by one; of more, only how they came out."""


def difference(figure: Result) -> str:
    """``3.0 points [1.0, 5.0] (n = 5)``: the figure with its interval."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return f"not known ({figure['empty']})"
    if figure["unit"] != "share":
        return f"{interval_text(value, low, high)} (n = {figure['n']})"
    shown = f"{points(value)} points"
    if low is not None and high is not None:
        shown += f" [{points(low)}, {points(high)}]"
    return f"{shown} (n = {figure['n']})"


def points(value: float | None) -> str:
    """A share as percentage points, with a true minus sign."""
    if value is None:
        return "–"
    value = 100 * value
    shown = f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
    return shown.removeprefix("-") if float(shown) == 0 else shown.replace("-", "−")


def figure_line(figure: Result) -> str:
    """A figure in full: name, difference, the two means, claimed side, margin, p."""
    text = f"{figure['name']}: {difference(figure)}"
    if figure["a"] is not None and figure["b"] is not None:
        percent = figure["unit"] == "share"
        text += f", means {amount(figure['a'], percent)} and {amount(figure['b'], percent)}"
    return text


def claimed_line(figure: Result) -> str:
    """What was claimed of a figure, and the test: margin, p, and p after Holm."""
    margin = f"{100 * figure['margin']:g} points" if figure["unit"] == "share" else f"{figure['margin']:.3g}"
    text = f"claimed {figure['claimed']}, margin ±{margin}"
    if figure["p"] is not None:
        text += f", p = {probability(figure['p'])}"
    return text + (f", after Holm {probability(figure['p_holm'])}" if figure["p_holm"] is not None else "")


def control_line(figure: Result) -> str:
    """Whether a control held two things equal, as far as the seeds can tell."""
    held = {"supported": "equal by the margin", "not supported": "not equal", "undecided here": "not shown to be equal"}
    return f"{figure_line(figure)}: {held[figure['outcome']]}"


def probability(p: float) -> str:
    """A p value with two digits, none below 0.0001."""
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def beside_lines(verdict: Result) -> list[str]:
    """The figures beside a verdict: each, or of many how they came out by the same rule."""
    beside = [figure for figure in verdict["beside"] if figure["value"] is not None]
    if len(beside) <= SHOWN_BESIDE:
        return [f"{figure_line(figure)}, {figure['outcome']}" for figure in beside]
    single = [figure for figure in beside if figure["name"].startswith("gain kept, ")]
    others = [f"{figure_line(figure)}, {figure['outcome']}" for figure in beside if figure not in single]
    if len(single) <= SHOWN_BESIDE:
        return [*others, *(f"{figure_line(figure)}, {figure['outcome']}" for figure in single)]
    counts = Counter(figure["outcome"] for figure in single)
    spread = ", ".join(f"{counts[name]} {name}" for name in MARKS if counts[name])
    return [*others, f"gain kept, {len(single)} comparisons one by one: {spread}"]


def adjusted(verdict: Result) -> str:
    """The verdict, and what becomes of it among all comparisons."""
    if verdict["verdict"] == verdict["adjusted"]:
        return str(verdict["verdict"])
    return f"{verdict['verdict']} (among all comparisons: {verdict['adjusted']})"
