"""The environment of language models: tasks of reasoning-gym, judged on sampled answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.checkpoint.side_files import find_side_files
from rlmerge.extras import require
from rlmerge.language.data import Example
from rlmerge.language.model import find_device, load_causal
from rlmerge.language.tokens import encode_references
from rlmerge.progress import Progress
from rlmerge_lab.store import partial_directory

from .arms import Arm
from .base_model import find_source, make_source, source_identity
from .environment import SPLITS
from .gym import SIDE_BY_SIDE, GymQuestion, GymTasks, Sampler
from .lora import add_adapter, merge_adapter, stored_weights
from .profiles import Profile

_NO_LIMIT = 10**9


class LanguageEnvironment:
    """See ``environment.Environment``. An answer is right when the verifier gives it the full score.

    Models are given prompts as the user's turn in their chat template, if they have one. What stands between the last
    ``<answer>`` tags is judged, or the whole answer. Accuracy is avg@k: the share of right ones among ``samples``
    answers to each question, drawn at temperature 1 with the same random numbers for every model.
    """

    pace = 2

    def __init__(self, profile: Profile, root: Path, device: str) -> None:
        self.profile, self.root, self._device_name = profile, root, device
        self.answer_tokens = profile.answer_tokens
        self._home = root
        self._sampler: Sampler | None = None
        self._tasks = GymTasks(profile.gym)

    def check(self) -> None:
        for name in self.profile.tasks:
            self._tasks.dataset(name)
        if self.profile.lora:
            require("peft")
        find_source(self.profile.model, self.root)
        find_device(self._device_name)

    def prepare(self, progress: Progress) -> None:
        make_source(self.profile.model, self.root, progress)
        if self._device.type == "cpu":
            progress.message("No GPU is used: language models train very slowly on a CPU.")
        # Trainers would split batches over several GPUs.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

    def processes(self) -> int:
        return 1 if self._device.type == "cpu" else SIDE_BY_SIDE

    def threads(self, processes: int) -> int:
        return max(1, (os.cpu_count() or 1) // processes)

    def identity(self) -> Mapping[str, Sequence[Any]]:
        profile = self.profile
        judged = [{name: profile.gym[name] for name in profile.tasks}, profile.answer_tokens, profile.samples]
        source = source_identity(profile.model, self.root)
        # Named only where it is used, so that experts of older laboratories stay.
        lora = [{"lora": profile.lora}] if profile.lora else []
        return {
            "base": [source, profile.base_steps, profile.base_batch, profile.base_rate, profile.shares],
            "rl": [judged, profile.rate, profile.rl_steps, profile.rl_prompts, profile.rl_samples, *lora],
            "sft": [
                judged,
                profile.rate,
                profile.sft_batch,
                profile.sft_limit,
                profile.long_steps,
                profile.rl_samples,
                *lora,
            ],
        }

    def draw_questions(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        counts = {"dev": self.profile.dev, "test": self.profile.test, "train": self.profile.train}
        drawn = [self._tasks.draw(name, counts) for name in self.profile.tasks]
        return {split: [question for one in drawn for question in one[split]] for split in SPLITS}

    def parse_question(self, fields: Mapping[str, Any]) -> GymQuestion:
        return GymQuestion.parse(fields)

    def new_model(self, seed: int) -> Any:
        require("torch").manual_seed(seed)
        return self._load(find_source(self.profile.model, self.root), "float32")

    def load_model(self, path: Path, arm: Arm) -> Any:
        model = self._load(path, arm.weights)
        return add_adapter(model, self.profile.lora) if self.profile.lora else model

    def save_model(self, model: Any, out: Path, manifest: Mapping[str, Any]) -> None:
        with partial_directory(out, manifest) as partial:
            merge_adapter(model).to(require("torch").bfloat16).save_pretrained(partial)
            for file in find_side_files(self._home):
                if file.name != "config.json":  # which says the type of the weights
                    target = partial / file.relative_to(self._home)
                    target.parent.mkdir(exist_ok=True)
                    shutil.copyfile(file, target)

    def tokenizer(self) -> Any:
        words = self._judge().tokenizer
        words.padding_side = "left"
        if words.pad_token is None:
            words.pad_token = words.eos_token
        return words

    def trainer_options(self, model: Any, batch: int) -> dict[str, Any]:
        size = next(size for size in range(min(batch, self.profile.microbatch), 0, -1) if batch % size == 0)
        on_gpu = self._device.type == "cuda"
        # Weights in bfloat16 compute in it by themselves, and so do their optimizer's moments.
        mixed = on_gpu and model.dtype == require("torch").float32
        return {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": batch // size,
            "use_cpu": not on_gpu,
            "bf16": mixed,
        }

    def base_answer(self, question: GymQuestion, random: Random) -> str:
        return question.teacher

    def text_example(self, random: Random) -> dict[str, list[int]] | None:
        return None

    def example(self, question: GymQuestion, answer: str) -> dict[str, list[int]]:
        turn = self.prompt(question)
        where = f"task '{question.task}'"
        if isinstance(turn, str):
            example = Example(where, turn, answer)
        else:
            example = Example(where, tuple(turn), {"role": "assistant", "content": answer})
        (sequence,) = encode_references(self.tokenizer(), [example], _NO_LIMIT).sequences
        prompt = sequence.start
        return {"input_ids": [*sequence.ids], "labels": [-100] * prompt + [*sequence.ids[prompt:]]}

    def prompt(self, question: GymQuestion) -> str | list[dict[str, str]]:
        return [{"role": "user", "content": question.prompt}] if self._judge().chat else question.prompt

    def is_right(self, question: GymQuestion, said: str) -> bool:
        return self._tasks.right(question, said)

    def own_answers(
        self, model: Any, questions: Sequence[GymQuestion], samples: int, seed: int
    ) -> Iterator[tuple[GymQuestion, str]]:
        judge = self._judge()
        judge.place(stored_weights(model))
        said = judge.sample([question.prompt for question in questions], samples, self.answer_tokens, seed)
        for question, texts in zip(questions, said, strict=True):
            yield from ((question, text) for text in texts if self.is_right(question, text))

    def accuracy(self, model: Any, questions: Sequence[GymQuestion]) -> float:
        judge = self._judge()
        judge.place(stored_weights(model))
        said = judge.sample([question.prompt for question in questions], self.profile.samples, self.answer_tokens, 0)
        return self._tasks.share_right(questions, said)

    @cached_property
    def _device(self) -> Any:
        return find_device(self._device_name)

    def _load(self, path: Path, dtype: str) -> Any:
        self._home, self._sampler = path, None
        model = load_causal(path, self._device, dtype).model
        # A temperature or penalty that a model ships would be applied to the samples it learns from.
        model.generation_config = require("transformers").GenerationConfig(
            eos_token_id=model.generation_config.eos_token_id, pad_token_id=self.tokenizer().pad_token_id
        )
        return model.requires_grad_(True)

    def _judge(self) -> Sampler:
        if self._sampler is None:
            self._sampler = Sampler(self._home, self._device)
        return self._sampler
