"""What the weights of a row say when they are read as logits, and how far a change moves that, without cancellation."""

from __future__ import annotations

import numpy as np

from .fusion import softmax_divergence


def row_divergence(reference: np.ndarray, changed: np.ndarray, divergence: str, direction: str) -> np.ndarray:
    """KL between q = softmax(W₀) and p = softmax(W₁) over the last axis: KL(q‖p) is ``reverse``, KL(p‖q) ``forward``.

    ``variance`` is ½ Var_q(Δ), which both are up to O(Δ³); ``exact`` is the divergence itself. Divergences below what
    the rounding of Δ amounts to are 0, such as that of a row whose entries all moved by the same amount.
    """
    delta = changed - reference
    if divergence == "variance":
        found = half_variance(reference, delta)
    elif direction == "reverse":
        found = softmax_divergence(reference, delta)
    else:
        found = softmax_divergence(changed, -delta)
    noise = 16 * np.finfo(delta.dtype).eps * np.abs(delta).max(-1)
    return np.where(found > noise * noise / 2, found, 0.0)


def half_variance(reference: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """½ Var_q(Δ) = ½ Σ q(Δ − Σ qΔ)² over the last axis: a sum of squares, sound in float32 too."""
    q = softmax(reference)
    away = delta - (q * delta).sum(-1, keepdims=True)
    return (q * away * away).sum(-1) / 2


def softmax(logits: np.ndarray) -> np.ndarray:
    """e^W / Σ e^W over the last axis."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def log_total(logits: np.ndarray) -> np.ndarray:
    """log Σ e^W over the last axis."""
    top = logits.max(-1)
    return top + np.log(np.exp(logits - top[..., None]).sum(-1))


def log_shift(reference: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """log Σ e^W₁ − log Σ e^W₀ = log Σ q e^Δ over the last axis, to full relative precision."""
    return np.log1p((softmax(reference) * np.expm1(changed - reference)).sum(-1))


def row_values(
    reference: np.ndarray, changed: np.ndarray, importance: str, divergence: str, direction: str
) -> np.ndarray:
    """What an importance needs of rows [rows, columns]: the divergence, or log Σ e^W and its change; [M, rows]."""
    if importance == "row":
        return row_divergence(reference, changed, divergence, direction)[None]
    return np.stack([log_total(reference if direction == "reverse" else changed), log_shift(reference, changed)])
