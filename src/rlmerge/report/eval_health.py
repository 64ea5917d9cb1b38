"""The charts of an evaluation report on how models generate: lengths, repetition, and distance from one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .dots import Dot, Dots, dot_plot
from .eval_words import divergence, references
from .ridges import Histogram, ridge_plot
from .tables import amount, matrix, plot, share, table

Result = Mapping[str, Any]

RATES = (("length_cap_repetition", "looping"), ("seq_rep_4", "seq-rep-4"), ("stop_rate", "stops by itself"))


def charts(health: Result, color: Mapping[str, int]) -> str:
    """Lengths, rates and divergences of every model."""
    return _rates(health, color) + _lengths(health, color) + _divergences(health) + _entropy(health, color)


def _rates(health: Result, color: Mapping[str, int]) -> str:
    models = health["models"]
    series = [
        Dots(m["name"], color.get(m["name"], 0), [Dot(row, m[key]) for row, (key, _) in enumerate(RATES)])
        for m in models
    ]
    title = "Repetition and stopping"
    note = (
        "Looping: outputs at the length cap that end in an n-gram repeated 8 times or more. seq-rep-4: 4-grams that "
        "occurred before in their output."
    )
    chart = dot_plot(title, note, [label for _, label in RATES], series, x_label="share", percent=True)
    rows = [[m["name"], *(share(m[key]) for key, _ in RATES)] for m in models]
    data = table(title, ["model", *(label for _, label in RATES)], rows, "names")
    return plot(title, note, chart, data)


def _lengths(health: Result, color: Mapping[str, int]) -> str:
    models = health["models"]
    histograms = [
        Histogram(
            m["name"], color.get(m["name"], 0), m["histogram"]["edges"], m["histogram"]["counts"], m["length"]["p50"]
        )
        for m in models
    ]
    title = "Length of outputs"
    note = f"Tokens of an output, at most {health['max_new_tokens']}; one scale for all, a triangle at each median."
    chart = ridge_plot(title, note, histograms, x_label="tokens")
    keys = ("mean", "p10", "p50", "p90", "max")
    rows = [[m["name"], *(amount(m["length"][key]) for key in keys)] for m in models]
    return plot(title, note, chart, table(title, ["model", *keys], rows, "names"))


def _divergences(health: Result) -> str:
    models = {m["name"]: m for m in health["models"]}
    columns = references(health["models"])
    if not columns:
        return ""
    known = [value for m in models.values() for value in m["kl_to"].values() if value is not None]
    most = max([value for value in known if math.isfinite(value)], default=0.0) or 1.0

    def cell(row: str, column: str) -> tuple[str, str, float] | None:
        model = models[row]
        if column not in model["kl_to"]:
            return None
        value = model["kl_to"][column]
        return divergence(model, column), "", 1.0 if value is None else value / most

    note = "KL(row ‖ column) in nats, the mean over the positions at which the row’s model wrote a token."
    return matrix("Next-token KL", note, list(models), cell, columns)


def _entropy(health: Result, color: Mapping[str, int]) -> str:
    models = health["models"]
    series = [Dots(m["name"], color.get(m["name"], 0), [Dot(0, m["entropy"])]) for m in models]
    title = "Entropy"
    note = "Of the next token, in nats at temperature 1, over the positions at which the model wrote a token."
    chart = dot_plot(title, note, ["entropy"], series, x_label="nats", references=[0.0])
    data = table(title, ["model", "entropy"], [[m["name"], amount(m["entropy"])] for m in models], "names")
    return plot(title, note, chart, data)
