"""Sentences and cells that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlmerge.calibration.results import STAGES

Result = Mapping[str, Any]


def headline(result: Result) -> str:
    """What came out, in one sentence."""
    before, after = result["objective"]["given"], result["objective"]["calibrated"]
    change = f"{abs(1 - after / before):.0%} {'nearer to' if after < before else 'farther from'}" if before else "no"
    groups = _count(len(result["groups"]), "group")
    what = f"{result['method']} with {result['parameter']} fitted on {groups} of tensors"
    return f"{what} is {change} its experts: {nats(after)} nats a token, {nats(before)} as given"


def judgement(result: Result) -> tuple[str, str]:
    """Level and sentence on the prompts that chose nothing."""
    rows = [row for row in result["divergences"] if row["held_out"] and row["role"] == "expert"]
    if not rows:
        return "warning", "No prompts were held out, so nothing shows that this holds beyond those fitted on"
    worse = [row["name"] for row in rows if row["held_out"]["calibrated"] > row["held_out"]["given"]]
    before, after = (sum(row["held_out"][stage] for row in rows) for stage in ("given", "calibrated"))
    sums = f"the divergences from {_count(len(rows), 'expert')} add up to {nats(after)}, {nats(before)} as given"
    if worse:
        return "warning", f"On prompts held out {sums}, but from {', '.join(worse)} the merge is farther"
    return "good", f"On prompts held out {sums}, nearer to every one"


def coefficient_rows(result: Result) -> Iterator[tuple[str, list[str]]]:
    """A label and the cells of the table of coefficients, a row for each group of tensors."""
    for g, group in enumerate(result["groups"]):
        yield group, [f"{row[g]:.4g}".replace("-", "−") for row in result["values"]]


def divergence_rows(result: Result) -> Iterator[tuple[str, str, list[str]]]:
    """Speaker, prompts, and nats a token at each stage; speaker by speaker, fitted on and held out."""
    for row in result["divergences"]:
        name = row["name"] if row["role"] == "expert" else f"{row['name']} (drift)"
        yield name, f"{row['prompts']} fitted on", [nats(row["fitted"][stage]) for stage in STAGES]
        if row["held_out"]:
            yield name, f"{row['held_out_prompts']} held out", [nats(row["held_out"][stage]) for stage in STAGES]


def nats(value: float) -> str:
    """A divergence, with as many digits as can matter."""
    return f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.2g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
