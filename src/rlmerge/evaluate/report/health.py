"""The charts of an evaluation report on how models generate: lengths, repetition, and distance from one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from rlmerge.evaluate.health import Health, ModelHealth
from rlmerge.evaluate.report.summary import divergence, references
from rlmerge.report.rows import Dot, Dots, Histogram, dot_plot, ridge_plot
from rlmerge.report.tables import amount, matrix, plot, share, table

RATES: tuple[tuple[str, Callable[[ModelHealth], float]], ...] = (
    ("looping", lambda model: model.length_cap_repetition),
    ("seq-rep-4", lambda model: model.seq_rep_4),
    ("stops by itself", lambda model: model.stop_rate),
)


def charts(health: Health, color: Mapping[str, int]) -> str:
    """Lengths, rates and divergences of every model."""
    return _rates(health, color) + _lengths(health, color) + _divergences(health) + _entropy(health, color)


def _rates(health: Health, color: Mapping[str, int]) -> str:
    labels = [label for label, _ in RATES]
    series = [
        Dots(model.name, color.get(model.name, 0), [Dot(row, read(model)) for row, (_, read) in enumerate(RATES)])
        for model in health.models
    ]
    title = "Repetition and stopping"
    note = (
        "Looping: outputs at the length cap that end in an n-gram repeated 8 times or more. seq-rep-4: 4-grams that "
        "occurred before in their output."
    )
    chart = dot_plot(title, note, labels, series, x_label="share", percent=True)
    rows = [[model.name, *(share(read(model)) for _, read in RATES)] for model in health.models]
    return plot(title, note, chart, table(title, ["model", *labels], rows, "names"))


def _lengths(health: Health, color: Mapping[str, int]) -> str:
    histograms = [
        Histogram(model.name, color.get(model.name, 0), model.histogram.edges, model.histogram.counts, model.length.p50)
        for model in health.models
    ]
    title = "Length of outputs"
    note = f"Tokens of an output, at most {health.max_new_tokens}; one scale for all, a triangle at each median."
    chart = ridge_plot(title, note, histograms, x_label="tokens")
    head = ["model", "mean", "p10", "p50", "p90", "max"]
    rows = [
        [model.name, *map(amount, (length.mean, length.p10, length.p50, length.p90, length.max))]
        for model in health.models
        for length in (model.length,)
    ]
    return plot(title, note, chart, table(title, head, rows, "names"))


def _divergences(health: Health) -> str:
    models = {model.name: model for model in health.models}
    columns = references(health.models)
    if not columns:
        return ""
    known = [value for model in health.models for value in model.kl_to.values() if math.isfinite(value)]
    most = max(known, default=0.0) or 1.0

    def cell(row: str, column: str) -> tuple[str, str, float] | None:
        model = models[row]
        if column not in model.kl_to:
            return None
        value = model.kl_to[column]
        return divergence(model, column), "", value / most if math.isfinite(value) else 1.0

    note = "KL(row ‖ column) in nats, the mean over the positions at which the row’s model wrote a token."
    return matrix("Next-token KL", note, list(models), cell, columns)


def _entropy(health: Health, color: Mapping[str, int]) -> str:
    series = [Dots(model.name, color.get(model.name, 0), [Dot(0, model.entropy)]) for model in health.models]
    title = "Entropy"
    note = "Of the next token, in nats at temperature 1, over the positions at which the model wrote a token."
    chart = dot_plot(title, note, ["entropy"], series, x_label="nats", references=[0.0])
    data = table(title, ["model", "entropy"], [[model.name, amount(model.entropy)] for model in health.models], "names")
    return plot(title, note, chart, data)
