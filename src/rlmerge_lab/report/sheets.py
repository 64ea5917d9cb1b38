"""The tables of a study's report as plain text cells, the same for terminal, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmerge.report.tables import amount, interval_text

from .parts import NONE, Sheet
from .words import ARMS, RULES, difference, probability

Result = Mapping[str, Any]


def experts(judged: Result) -> Sheet:
    """Accuracy, size and sparsity of the experts by arm."""
    fields = (
        ("base's pass@1", "base", True),
        ("own task", "own", True),
        ("other tasks, change", "others", True),
        ("held tasks, change", "held", True),
        ("‖τ‖/‖θ₀‖", "norm", False),
        ("unchanged", "unchanged", True),
        ("steps", "steps", False),
    )
    rows = [
        [row["arm"], *(cell(row[key], percent) for _, key, percent in fields), seeds(row["own"])]
        for row in judged["summary"]["experts"]
    ]
    head = ["arm", *(title for title, _, _ in fields), "seeds"]
    return Sheet("Experts by arm: means over tasks and seeds, with 95 % intervals over seeds", head, rows).filled()


def arms(study: Result) -> Sheet:
    """What each arm is."""
    return Sheet("Arms", ["arm", "training"], [[arm, ARMS.get(arm, "–")] for arm in study.get("arms") or ()])


def untested(judged: Result) -> Sheet:
    """The claims that this study holds nothing for, and why."""
    rows = [[row["claim"], row["reason"]] for row in judged["untested"]]
    return Sheet("", ["claim", "why it is not tested"], rows)


def gains(judged: Result, rule: str) -> Sheet:
    """Gain kept by method and arm under one rule."""
    methods = judged["summary"]["methods"]
    names = [row["arm"] for row in judged["summary"]["experts"]]
    rows = [[row["method"], *(cell(row["arms"][arm][rule], True) for arm in names)] for row in methods]
    return Sheet(
        f"Gain kept by merges of all experts, methods {RULES[rule]}, 95 % intervals over seeds",
        ["method", *names],
        rows,
    ).filled()


def differences(judged: Result) -> Sheet:
    """RL minus SFT by method and rule, with p."""
    rows: list[list[str]] = []
    for row in judged["summary"]["methods"]:
        cells: list[str] = []
        for rule in RULES:
            figure = row["rl_minus_sft"][rule]
            known = figure["value"] is not None
            cells += [difference(figure) if known else NONE, NONE if figure["p"] is None else probability(figure["p"])]
        rows.append([row["method"], *cells])
    head = ["method", *(title for rule in RULES.values() for title in (rule, "p"))]
    return Sheet("Gain kept, RL − SFT by method, paired within seeds; p unadjusted", head, rows).filled()


def denominators(judged: Result) -> Sheet:
    """The same merges by every denominator, for the methods as they come."""
    rows: list[list[str]] = []
    for row in judged["summary"]["methods"]:
        for arm in ("rl", "sft"):
            found = row["arms"].get(arm, {})
            keys = ("default", "retention", "score", "pairs")
            rows.append([f"{row['method']}, {arm}", *(cell(found.get(key), True) for key in keys)])
    head = ["method, arm", "gain kept", "merged / expert", "pass@1", "gain kept, pairs"]
    return Sheet("Methods as they come, by every denominator (degradation is merged / expert − 1)", head, rows).filled()


def geometry(judged: Result) -> Sheet:
    """Overlap and conflict of pairs by arm, each beside what chance gives."""
    fields: tuple[tuple[str, str, bool], ...] = (
        ("cosine", "cosine", False),
        ("null, sd", "cosine_null_sd", False),
        ("Jaccard", "jaccard", True),
        ("by chance", "jaccard_chance", True),
        ("opposite signs", "sign_conflict", True),
        ("conflict norm", "conflict_norm", False),
        ("Σ|C⁻|/Σ|C|", "conflict_share", True),
    )
    rows = [
        [row["arm"], *(cell(row[key], percent) for _, key, percent in fields)] for row in judged["summary"]["geometry"]
    ]
    caption = "Two task vectors of an arm: means over pairs and seeds; random signs give 50 % opposite and in conflict"
    return Sheet(caption, ["arm", *(title for title, _, _ in fields)], rows).filled()


def scale(judged: Result) -> Sheet:
    """The sweep of task arithmetic by arm, and every method as it comes."""
    rows = [
        [f"λ = {point['lambda']:g}, {row['arm']}", cell(point["norm"], False), cell(point["gain_kept"], True)]
        for row in judged["summary"]["scale"]
        for point in row["points"]
    ]
    rows += [
        [f"{row['method']}, {arm}", cell(found["norm"], False), cell(found["default"], True)]
        for row in judged["summary"]["methods"]
        for arm, found in row["arms"].items()
    ]
    caption = "Task arithmetic over its coefficient, and methods as they come"
    return Sheet(caption, ["merge", "‖δ*‖/‖θ₀‖", "gain kept"], rows).filled()


def survival(judged: Result, field: str) -> Sheet:
    """What rounding to the stored type left (``survival``) or took back (``erased``), by method and arm."""
    methods = judged["summary"]["methods"]
    names = [row["arm"] for row in judged["summary"]["experts"]]
    rows = [[row["method"], *(cell(row["arms"][arm][field], True) for arm in names)] for row in methods]
    words = {"survival": "differ from the base in the merge", "erased": "were changed by the method and rounded back"}
    caption = f"Share of all weights any expert changed that {words[field]}, methods as they come"
    return Sheet(caption, ["method", *names], rows).filled()


def exact_output(judged: Result) -> Sheet:
    """The same merges without rounding."""
    rows = [
        [
            f"{row['method']} {RULES.get(row['rule'], row['rule'])}, {row['arm']}",
            *(cell(row[key], True) for key in _EXACT),
        ]
        for row in judged["summary"]["exact_output"]
    ]
    return Sheet("Gain kept with weights stored in float32 and in bfloat16", ["merge", *_EXACT], rows).filled()


_EXACT = ("float32", "bfloat16", "erased")


def health(judged: Result) -> Sheet:
    """Repetition, stopping and entropy of generated text."""
    fields = (
        ("repetition", "length_cap_repetition", True),
        ("seq-rep-4", "seq_rep_4", True),
        ("stops", "stop_rate", True),
        ("entropy, nats", "entropy", False),
    )
    rows = [
        [
            f"{row['model']}, {row['arm']}",
            *(cell(row[key], percent) for _, key, percent in fields),
            seeds(row["stop_rate"]),
        ]
        for row in judged["summary"]["health"]
    ]
    caption = "Sampled text; repetition is the share of outputs at the length cap with an n-gram 8 times at the end"
    return Sheet(caption, ["model, arm", *(title for title, _, _ in fields), "seeds"], rows).filled()


def cell(found: Result | None, percent: bool) -> str:
    """A mean with its interval, or a dash."""
    return NONE if found is None else interval_text(found["value"], found["low"], found["high"], percent)


def seeds(found: Result | None) -> str:
    """The number of seeds behind a cell."""
    return NONE if found is None else str(found["n"])


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return amount(value, True)
