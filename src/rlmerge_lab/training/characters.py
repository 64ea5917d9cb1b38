"""The world of character tasks: small models of our own, trained on a CPU, scored exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.evaluate.tasks import END, encode
from rlmerge.extras import require
from rlmerge.progress import Progress
from rlmerge_lab.training.environment import SPLITS
from rlmerge_lab.training.models import (
    ANSWER,
    accuracy,
    items_of,
    load_model,
    new_model,
    save_model,
    tokenizer,
    vocabulary,
)
from rlmerge_lab.training.profiles import Arm, Profile
from rlmerge_lab.training.tasks import Question, task

_BATCH = 64


@dataclass(frozen=True, slots=True)
class CharacterWorld:
    """See ``world.World``; the tasks are in ``tasks``, the models in ``models``."""

    profile: Profile

    pace = 1
    answer_tokens = ANSWER

    def check(self) -> None: ...

    def prepare(self, progress: Progress) -> None: ...

    def processes(self) -> int:
        return os.cpu_count() or 1

    def threads(self, processes: int) -> int:
        # Matrices this small gain nothing from threads, which would fight over the cores with the other processes.
        return 1

    def decides(self) -> Mapping[str, Sequence[Any]]:
        fields = self.profile.to_dict()
        return {kind: [fields[name] for name in names] for kind, names in _DECIDE.items()}

    def draw(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        counts = {"dev": self.profile.dev, "test": self.profile.test, "train": self.profile.train}
        drawn: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for name in self.profile.tasks:
            seen: frozenset[str] = frozenset()
            for number, split in enumerate(SPLITS):
                questions = task(name).questions(counts[split], number, seen)
                seen |= {question.prompt for question in questions}
                drawn[split] += [{key: getattr(one, key) for key in Question.__slots__} for one in questions]
        return drawn

    def question(self, fields: Mapping[str, Any]) -> Question:
        given: dict[str, Any] = {**fields, "answers": tuple(fields["answers"])}
        return Question(**given)

    def new(self, seed: int) -> Any:
        return new_model(self.profile, seed)

    def load(self, path: Path, arm: Arm) -> Any:
        return load_model(path, arm.weights)

    def save(self, model: Any, out: Path, manifest: Mapping[str, Any]) -> None:
        save_model(model, tokenizer(), out, manifest)

    def tokenizer(self) -> Any:
        return tokenizer()

    def trainer(self, model: Any, batch: int) -> dict[str, Any]:
        return {"per_device_train_batch_size": batch, "use_cpu": True, "bf16": False}

    def lesson(self, question: Question, random: Random) -> str:
        return question.slip if random.random() < self.profile.slips else random.choice(question.answers)

    def row(self, question: Question, answer: str) -> dict[str, list[int]]:
        known = vocabulary()
        prompt, said = encode(question.prompt, known), encode(answer + END, known)
        return {"input_ids": [*prompt, *said], "labels": [-100] * len(prompt) + [*said]}

    def turn(self, question: Question) -> str:
        return question.prompt

    def right(self, question: Question, said: str) -> bool:
        return said in question.answers

    def own(self, model: Any, questions: Sequence[Question], samples: int, seed: int) -> Iterator[tuple[Question, str]]:
        torch, words = require("torch"), tokenizer()
        torch.manual_seed(seed)
        sampling = require("transformers").GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=ANSWER,
            num_return_sequences=samples,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
        for first in range(0, len(questions), _BATCH):
            asked = questions[first : first + _BATCH]
            batch = words([question.prompt for question in asked], return_tensors="pt", return_token_type_ids=False)
            with torch.no_grad():
                said = model.generate(
                    batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=sampling
                )
            texts = words.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in enumerate(texts):
                question = asked[index // samples]
                if self.right(question, text):
                    yield question, text

    def accuracy(self, model: Any, questions: Sequence[Question]) -> float:
        return accuracy(model, items_of(questions))


_DECIDE = {
    "base": ("hidden", "layers", "heads", "mlp", "base_steps", "base_batch", "base_rate", "slips", "shares", "tasks"),
    "rl": ("rate", "rl_steps", "rl_prompts", "rl_samples"),
    "sft": ("rate", "sft_batch", "sft_limit", "long_steps", "rl_samples"),
}
"""The fields of a profile that decide a base, a reinforced and a supervised expert."""
