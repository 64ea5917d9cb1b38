"""Which trials are best: one by one objective, a Pareto front by several."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Trial


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial of the highest objective; of several objectives, of the highest mean place in the front."""
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        return None
    if len(done[0].values) == 1:
        return max(done, key=lambda trial: (trial.values[0], -trial.number))
    chosen = front(done)
    spans = [(min(column), max(column)) for column in zip(*(trial.values for trial in chosen), strict=True)]

    def place(trial: Trial) -> float:
        shares = [
            (v - low) / (high - low) if high > low else 1.0 for v, (low, high) in zip(trial.values, spans, strict=True)
        ]
        return sum(shares) / len(shares)

    return max(chosen, key=lambda trial: (place(trial), -trial.number))


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other is at least as good as in every objective and better in one."""

    def beats(a: Trial, b: Trial) -> bool:
        return all(x >= y for x, y in zip(a.values, b.values, strict=True)) and a.values != b.values

    done = [trial for trial in trials if trial.state == "complete"]
    return [trial for trial in done if not any(beats(other, trial) for other in done)]
