"""What the tiny laboratories share: Llama models of our own, trained on a CPU and scored exactly."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from rlmerge.evaluate.exact import Item, score
from rlmerge.extras import require
from rlmerge.language.characters import END
from rlmerge.language.tiny import TinyConfig, TinyLlama
from rlmerge_lab.store import partial_directory

from .arms import Arm
from .environment import SPLITS
from .profiles import Profile
from .tasks import CharacterQuestion, task

ANSWER = 9
"""Tokens a model may take for its answer and the end: one more than the longest valid one."""

_BATCH = 64
_DECIDE = {
    "base": ("hidden", "layers", "heads", "mlp", "base_steps", "base_batch", "base_rate", "slips", "shares", "tasks"),
    "rl": ("rate", "rl_steps", "rl_prompts", "rl_samples"),
    "sft": ("rate", "sft_batch", "sft_limit", "long_steps", "rl_samples"),
}
"""The fields of a profile that decide a base, a reinforced and a supervised expert."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Sizes and ids a model is made for: how many tokens there are, and which one begins, ends and pads a text."""

    count: int
    start: int
    end: int
    pad: int


@dataclass(frozen=True)
class SmallEnvironment(ABC):
    """See ``environment.Environment``. What is left to say: how questions and texts are spelled."""

    profile: Profile
    root: Path

    pace = 1
    answer_tokens = ANSWER
    longest = 64
    """Positions a model is made for."""

    @abstractmethod
    def tokens(self) -> Tokens:
        """The vocabulary models are made for."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, in which ``END`` stands for the end."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """See ``environment.Environment``."""

    def word(self, question: CharacterQuestion) -> CharacterQuestion:
        """A question of ``tasks`` as models are asked it."""
        return question

    def processes(self) -> int:
        return os.cpu_count() or 1

    def threads(self, processes: int) -> int:
        # Matrices this small gain nothing from threads, which would fight over the cores with the other processes.
        return 1

    def identity(self) -> Mapping[str, Sequence[Any]]:
        fields = self.profile.to_dict()
        return {kind: [fields[name] for name in names] for kind, names in _DECIDE.items()}

    def draw_questions(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        counts = {"dev": self.profile.dev, "test": self.profile.test, "train": self.profile.train}
        drawn: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
        for name in (*self.profile.tasks, *self.profile.held):
            seen: frozenset[str] = frozenset()
            for number, split in enumerate(SPLITS):
                questions = task(name).questions(counts[split], number, seen)
                seen |= {question.prompt for question in questions}
                worded = map(self.word, questions)
                drawn[split] += [{key: getattr(one, key) for key in CharacterQuestion.__slots__} for one in worded]
        return drawn

    def parse_question(self, fields: Mapping[str, Any]) -> CharacterQuestion:
        given: dict[str, Any] = {**fields, "answers": tuple(fields["answers"])}
        return CharacterQuestion(**given)

    def new_model(self, seed: int) -> Any:
        transformers, profile, tokens = require("transformers"), self.profile, self.tokens()
        require("torch").manual_seed(seed)
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=tokens.count,
                hidden_size=profile.hidden,
                intermediate_size=profile.mlp,
                num_hidden_layers=profile.layers,
                num_attention_heads=profile.heads,
                num_key_value_heads=profile.heads,
                max_position_embeddings=self.longest,
                rms_norm_eps=1e-5,
                tie_word_embeddings=True,
                bos_token_id=tokens.start,
                eos_token_id=tokens.end,
                pad_token_id=tokens.pad,
            )
        )

    def load_model(self, path: Path, arm: Arm) -> Any:
        dtype = getattr(require("torch"), arm.weights)
        return require("transformers").LlamaForCausalLM.from_pretrained(path, dtype=dtype)

    def save_model(self, model: Any, out: Path, manifest: Mapping[str, Any]) -> None:
        with partial_directory(out, manifest) as partial:
            model.to(require("torch").bfloat16).save_pretrained(partial)
            self.tokenizer().save_pretrained(partial)

    def trainer_options(self, model: Any, batch: int) -> dict[str, Any]:
        return {"per_device_train_batch_size": batch, "use_cpu": True, "bf16": False}

    def base_answer(self, question: CharacterQuestion, random: Random) -> str:
        return question.slip if random.random() < self.profile.slips else random.choice(question.answers)

    def text_example(self, random: Random) -> dict[str, list[int]] | None:
        return None

    def example(self, question: CharacterQuestion, answer: str) -> dict[str, list[int]]:
        prompt, said = self.encode(question.prompt), self.encode(answer + END)
        return {"input_ids": [*prompt, *said], "labels": [-100] * len(prompt) + [*said]}

    def prompt(self, question: CharacterQuestion) -> str:
        return question.prompt

    def is_right(self, question: CharacterQuestion, said: str) -> bool:
        return said.strip() in question.answers

    def own_answers(
        self, model: Any, questions: Sequence[CharacterQuestion], samples: int, seed: int
    ) -> Iterator[tuple[CharacterQuestion, str]]:
        torch, words = require("torch"), self.tokenizer()
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
            prompts = [question.prompt for question in asked]
            batch = words(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
            with torch.no_grad():
                said = model.generate(
                    batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=sampling
                )
            texts = words.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in enumerate(texts):
                question = asked[index // samples]
                if self.is_right(question, text):
                    yield question, text

    def accuracy(self, model: Any, questions: Sequence[CharacterQuestion]) -> float:
        bfloat16 = require("torch").bfloat16
        config = TinyConfig.parse(model.config.to_dict(), "the model in training")
        weights = {name: value.detach().to(bfloat16).float().cpu().numpy() for name, value in model.named_parameters()}
        items = [Item(question.task, question.prompt, question.answers) for question in questions]
        return float(np.mean(score(TinyLlama(config, weights), items, self.encode).probability))
