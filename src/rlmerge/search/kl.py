"""``proxy:kl``: how far a candidate is from what each expert says to prompts of its own kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import torch

from rlmerge.calibration.divergence import Voice, mean_divergence
from rlmerge.calibration.experts import Heard, check_places, listen
from rlmerge.calibration.options import CalibrationOptions
from rlmerge.calibration.request import check_vocabularies, data_of, read_prompts
from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RequestError
from rlmerge.language.model import failures, find_device, load_causal, match_parameters, release_memory
from rlmerge.merging.plan import Plan
from rlmerge.progress import Progress
from rlmerge.report.names import model_names

from .candidates import Candidate


class ExpertDivergence:
    """What the experts of ``plan`` say to their ``prompts``, and how far a candidate is from that.

    The request is checked at once; the experts are heard by ``listen``, or before the first candidate is looked at.
    RequestError for an expert without prompts, prompts of no expert, data that cannot be read, and experts of another
    vocabulary.
    """

    def __init__(
        self, base: Checkpoint, plan: Plan, prompts: Mapping[str, str], options: CalibrationOptions, progress: Progress
    ) -> None:
        if plan.recipe.tokenizer is not None:
            hint = "Give the models one vocabulary first with `rlmerge tokens`, or take another objective."
            what = "the recipe changes the vocabulary, so distributions of its experts and the merge do not compare"
            raise RequestError(what, where=plan.recipe.origin or "recipe", hint=hint)
        self.base, self.plan, self.options, self.progress = base, plan, options, progress
        self.names = model_names(plan.experts)
        data = data_of(prompts, self.names, [expert.reference for expert in plan.experts])
        self.sets = [read_prompts(each, options) for each in data]
        check_vocabularies(base, plan.experts)
        self.device = find_device(options.device)
        self.warnings: list[str] = []
        self._voices: list[Voice] = []

    def identity(self) -> dict[str, Any]:
        """What decides the divergence beside the models, as plain data."""
        chosen = asdict(self.options)
        decisive = ("responses", "samples", "max_length", "max_new_tokens", "top", "seed", "dtype")
        digests = [[name, data.digest, len(data.examples)] for name, data in zip(self.names, self.sets, strict=True)]
        return {"data": digests, "options": {name: chosen[name] for name in decisive}}

    def listen(self) -> None:
        """Load the base's architecture and hear every expert in it, unless that was done. Errors as for ``hear``."""
        if self._voices:
            return
        causal = load_causal(self.base.path, self.device, self.options.dtype)
        parameters, _ = match_parameters(causal.model, self.base)
        check_places(self.plan, parameters)
        heard = list(listen(causal, self.plan, parameters, self.sets, None, self.options, self.progress))
        self._causal, self._parameters = causal, parameters
        self._voices = [Voice(name, 1.0, each.fitted) for name, each in zip(self.names, heard, strict=True)]
        for name, each in zip(self.names, heard, strict=True):
            self.warnings += self._doubts(name, each)

    def _doubts(self, name: str, heard: Heard) -> Iterator[str]:
        if heard.dropped:
            yield f"{heard.dropped} prompts of {name} left no room for a response and were dropped"
        apart = fmean(float(target.logs.double().exp().sum(-1).mean()) for target in heard.fitted)
        if apart < 0.95:
            yield (
                f"the {self.options.top} likeliest tokens hold {apart:.0%} of what {name} finds likely, so proxy:kl is "
                "too small by what lies between the others; raise `top` to tell more apart"
            )

    def of(self, candidate: Candidate) -> float:
        """Mean over the experts of KL(expert ‖ candidate) in nats a token; the model has the candidate's weights then.

        RunError when it is not finite, or a weight has no place in the base's model.
        """
        self.listen()
        with failures(self._causal.path), torch.no_grad():
            for name, weights in candidate.tensors():
                parameter = self._parameters.get(name)
                if parameter is not None:
                    parameter.copy_(torch.from_numpy(weights).view(parameter.shape))
        return fmean(mean_divergence(self._causal, voice, self.options) for voice in self._voices)

    def close(self) -> None:
        """Give the model's memory back."""
        if self._voices:
            del self._causal, self._parameters
            self._voices = []
            release_memory()
