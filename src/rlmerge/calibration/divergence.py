"""KL(expert ‖ merged) over an expert's own samples, and its gradient in the coefficients.

The chain rule needs no graph through the merge: ∂L/∂c_kg = Σ over tensors of group g of ⟨∂L/∂θ, D_k⟩, so a step is an
ordinary backward pass of the merged model and one dot product for each tensor and coefficient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlmerge.calibration.directions import Directions
from rlmerge.calibration.experts import Target, batches, next_logits
from rlmerge.calibration.groups import Groups
from rlmerge.calibration.options import CalibrationOptions
from rlmerge.errors import RunError
from rlmerge.frozen import frozen
from rlmerge.language.model import Causal, failures

Coefficients = Callable[[str], np.ndarray]
"""The C coefficients of a tensor, by its name."""

_MEMORY_HINT = (
    "Try --stream-gradients, --gradient-checkpointing, a smaller --batch-size or --max-length, or --dtype bfloat16."
)


@frozen
class Voice:
    """An expert in the objective: ``weight`` times its mean divergence a token."""

    name: str
    weight: float
    targets: tuple[Target, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are compared."""
        return sum(target.sequence.tokens for target in self.targets)


class Merged:
    """A causal model whose weights are θ(c), and what it says beside the experts."""

    def __init__(
        self,
        causal: Causal,
        parameters: Mapping[str, Any],
        directions: Directions,
        groups: Groups,
        options: CalibrationOptions,
    ) -> None:
        self.causal, self.directions, self.groups, self.options = causal, directions, groups, options
        distinct: dict[int, str] = {}
        for name in directions.changes:
            distinct.setdefault(id(parameters[name]), name)
        # Two names of one weight are one weight: its gradient has both uses.
        self.parameters = {name: parameters[name] for name in distinct.values()}

    def place(self, coefficients: Coefficients) -> None:
        """Make the weights θ(c)."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                merged = torch.from_numpy(np.array(self.directions.base[name]))
                merged += _values(coefficients(name)) @ torch.from_numpy(self.directions.changes[name])
                parameter.copy_(merged.view(parameter.shape))

    def grouped(self, values: np.ndarray) -> Coefficients:
        """The coefficients [C, G] of groups, tensor by tensor."""
        return lambda name: values[:, self.groups.group_of[name]]

    def divergence(self, voice: Voice) -> float:
        """Mean nats a token of KL(expert ‖ merged) on a voice's targets, at the weights as they are."""
        return mean_divergence(self.causal, voice, self.options)

    def slope(
        self, values: np.ndarray, voices: Sequence[Voice], advance: Callable[[int], None] = lambda done: None
    ) -> tuple[float, np.ndarray]:
        """Σ weight · mean divergence at the coefficients ``values`` [C, G], and its gradient [C, G], float64."""
        self.place(self.grouped(values))
        slopes = np.zeros(values.shape)
        objective = 0.0
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        hooks = self._watch(slopes) if self.options.stream_gradients else []
        try:
            with failures(self.causal.path, _MEMORY_HINT):
                for voice in voices:
                    for batch in batches(voice.targets, self.options):
                        share = voice.weight / voice.tokens * _sum(self.causal, batch)
                        share.backward()
                        objective += _finite(float(share.detach().double()), voice)
                        advance(len(batch))
            for name in self.parameters:
                self._take(name, slopes)
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in self.parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None
        if not np.isfinite(slopes).all():
            raise _not_finite("the gradient", None)
        return objective, slopes

    def _watch(self, slopes: np.ndarray) -> list[Any]:
        def hook(name: str) -> Callable[[Any], None]:
            return lambda parameter: self._take(name, slopes)

        return [p.register_post_accumulate_grad_hook(hook(name)) for name, p in self.parameters.items()]

    def _take(self, name: str, slopes: np.ndarray) -> None:
        """Add what a tensor's gradient says of the coefficients, and free it."""
        parameter = self.parameters[name]
        if parameter.grad is None:
            return
        with torch.no_grad():
            gradient = parameter.grad.flatten().float()
            changes = torch.from_numpy(self.directions.changes[name]).to(gradient.device)
            slopes[:, self.groups.group_of[name]] += (changes @ gradient).double().cpu().numpy()
        parameter.grad = None


def mean_divergence(causal: Causal, voice: Voice, options: CalibrationOptions) -> float:
    """Mean nats a token of KL(expert ‖ model) on a voice's targets, for the weights that ``causal`` has by now.

    RunError when it is not finite, or memory runs out.
    """
    total = 0.0
    with failures(causal.path, _MEMORY_HINT), torch.no_grad():
        for batch in batches(voice.targets, options):
            total += float(_sum(causal, batch).double())
    return _finite(total, voice) / voice.tokens


def _sum(causal: Causal, batch: Sequence[Target]) -> Tensor:
    found = next_logits(causal.model, [target.sequence for target in batch], causal.device)
    return torch.stack([divergences(row, target).sum() for row, target in zip(found, batch, strict=True)]).sum()


def divergences(logits: Tensor, target: Target) -> Tensor:
    """Nats [T] of KL(expert ‖ model) at each token, for the model's ``logits`` [T, V].

    Tokens that the target does not tell apart are one event, so that this is a lower bound of the whole divergence, and
    is it where the target has all tokens.
    """
    logs = torch.log_softmax(logits, -1)
    tokens, ours = target.tokens.to(logs.device), target.logs.to(logs.device)
    found = (ours.exp() * (ours - logs.gather(-1, tokens))).sum(-1)
    if target.rest is not None:
        rest = target.rest.to(logs.device)
        theirs = torch.logsumexp(logs.scatter(-1, tokens, -torch.inf), -1)
        found = found + rest.exp() * (rest - theirs)
    return found


def _values(coefficients: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(coefficients, np.float32))


def _finite(value: float, voice: Voice) -> float:
    if not np.isfinite(value):
        raise _not_finite("the divergence", voice.name)
    return value


def _not_finite(what: str, where: str | None) -> RunError:
    hint = "Compute in --dtype float32, and check the models: `rlmerge inspect` names NaN and overflow."
    return RunError(f"{what} is not finite", where=where, hint=hint)
