"""Score and loss of weights in memory: by NumPy for small character models, by transformers for others.

Both give the same two figures for each task: the mean probability that a sample at temperature 1 is a valid answer, and
the mean of minus its logarithm, in nats an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Item, score
from rlmerge.evaluate.landscape.loss import Point
from rlmerge.evaluate.landscape.weights import Weights, shapes_of
from rlmerge.evaluate.predict import CELLS
from rlmerge.extras import require
from rlmerge.frozen import frozen
from rlmerge.language.characters import Encode, read_encoder
from rlmerge.language.model import Causal, failures, find_device, load_causal, match_parameters
from rlmerge.language.tiny import TinyConfig, TinyLlama
from rlmerge.language.tokens import encode_text

_BATCH = 64


@frozen(slots=True)
class TinyScorer:
    """Scores small Llamas of one configuration on ``items``."""

    config: TinyConfig
    spell: Encode
    items: tuple[Item, ...]

    @classmethod
    def of(cls, model: Path, items: Sequence[Item]) -> TinyScorer:
        """The scorer for models with the configuration and vocabulary of ``model``; RequestError without items."""
        config = TinyConfig.parse(open_checkpoint(model).config or {}, str(model / "config.json"))
        return cls(config, read_encoder(model, config.vocabulary), _some(items))

    def __call__(self, weights: Weights) -> Point:
        shapes = self.config.shapes()
        found = shapes_of(weights)
        wrong = next((name for name, shape in shapes.items() if found.get(name) != shape), None)
        if wrong is not None:
            what = f"should be of shape {list(shapes[wrong])}, found {list(found.get(wrong, ())) or 'nothing'}"
            raise RequestError(what, where=wrong, hint="Score weights of the model the scorer was made for.")
        network = TinyLlama(self.config, {name: weights[name] for name in shapes})
        # Far from every trained model weights overflow; the loss is then NaN, and a picture shows it.
        with np.errstate(over="ignore", invalid="ignore"):
            result = score(network, self.items, self.spell)
        return _by_task(result.tasks, result.loss)


class CausalScorer:
    """Scores models of one architecture in transformers, in float32, by placing weights into one loaded model."""

    def __init__(self, model: Path, items: Sequence[Item], *, device: str = "auto", chat: bool = False) -> None:
        """``model`` gives architecture and tokenizer. RequestError without items or where nothing ends an answer."""
        self._torch = require("torch")
        self._causal: Causal = load_causal(model, find_device(device), dtype="float32")
        self._parameters, _ = match_parameters(self._causal.model, open_checkpoint(model))
        self._tasks = np.array([item.task for item in _some(items)])
        end = self._causal.tokenizer.eos_token_id
        if end is None:
            hint = "An answer counts only if the model stops after it; set eos_token in tokenizer_config.json."
            raise RequestError("the tokenizer has no end of sequence", where=str(model), hint=hint)
        self._texts = [
            (index, encode_text(self._causal.tokenizer, item.prompt, str(model), chat=chat), (*self._ids(answer), end))
            for index, item in enumerate(items)
            for answer in dict.fromkeys(item.answers)
        ]
        # The longest first: neighbours need little padding, and what does not fit into memory fails at once.
        self._texts.sort(key=lambda text: -len(text[1]) - len(text[2]))

    def __call__(self, weights: Weights) -> Point:
        with failures(self._causal.path), self._torch.no_grad():
            for name, parameter in self._parameters.items():
                if name not in weights:
                    hint = "Score weights of the model the scorer was made for."
                    raise RequestError("the weights lack this tensor", where=name, hint=hint)
                parameter.copy_(self._torch.from_numpy(np.require(weights[name], requirements=("C", "W"))))
            total = np.full(len(self._tasks), -np.inf)
            room = CELLS // self._causal.model.config.get_text_config().vocab_size
            first = 0
            while first < len(self._texts):
                batch = min(_BATCH, max(1, room // (len(self._texts[first][1]) + len(self._texts[first][2]))))
                chosen = self._texts[first : first + batch]
                # Distinct answers, each with its end, exclude one another, so their probabilities add up.
                for (index, *_), log in zip(chosen, self._log_probabilities(chosen), strict=True):
                    total[index] = np.logaddexp(total[index], log)
                first += batch
        return _by_task(self._tasks, -total)

    def _log_probabilities(self, texts: Sequence[tuple[int, Sequence[int], Sequence[int]]]) -> list[float]:
        """log p(answer and end | prompt) of each text; rows are padded on the right, where no token looks."""
        torch, device = self._torch, self._causal.device
        width = max(len(prompt) + len(answer) for _, prompt, answer in texts)
        rows = [[*prompt, *answer] + [0] * (width - len(prompt) - len(answer)) for _, prompt, answer in texts]
        tokens = torch.tensor(rows, device=device)
        logits = self._causal.model(input_ids=tokens[:, :-1]).logits.float()
        taken = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        return [
            float(row[len(prompt) - 1 : len(prompt) + len(answer) - 1].double().sum())
            for row, (_, prompt, answer) in zip(taken, texts, strict=True)
        ]

    def _ids(self, answer: str) -> list[int]:
        return self._causal.tokenizer(answer, add_special_tokens=False)["input_ids"]


def _some(items: Sequence[Item]) -> tuple[Item, ...]:
    if not items:
        raise RequestError("there are no items to score", hint="Name a JSON Lines file with a line an item.")
    return tuple(items)


def _by_task(tasks: np.ndarray, loss: np.ndarray) -> Point:
    """Mean probability and mean loss of each task, in the order in which tasks first occur."""
    found: dict[str, tuple[float, float]] = {}
    for task in dict.fromkeys(tasks.tolist()):
        chosen: Any = loss[tasks == task]
        found[task] = (float(np.exp(-chosen).mean()), float(chosen.mean()))
    return found
