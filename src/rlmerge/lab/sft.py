"""Supervised training with TRL's SFTTrainer: the base, and the supervised experts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rlmerge.evaluate.tasks import END, encode
from rlmerge.sensitivity.extra import require

from .models import tokenizer, vocabulary

Watch = Callable[[int], bool]
"""Called after each optimizer step with its number; True ends the training."""


def train_supervised(
    model: Any,
    pairs: Iterable[tuple[str, str]],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    watch: Watch,
    schedule: str = "constant",
) -> None:
    """Train ``model`` in place on (prompt, answer) pairs; only the answer and its end are learnt."""
    trl = require("trl")
    from .watching import watching

    known = vocabulary()
    rows = [_row(encode(prompt, known), encode(answer + END, known)) for prompt, answer in pairs]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=batch,
                learning_rate=rate,
                lr_scheduler_type=schedule,
                weight_decay=0.0,
                seed=seed,
                dataset_kwargs={"skip_prepare_dataset": True},
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=require("datasets").Dataset.from_list(rows),
            processing_class=tokenizer(),
            callbacks=[watching(watch)],
        )
        trainer.remove_callback(require("transformers").PrinterCallback)
        trainer.train()


def _row(prompt: Sequence[int], answer: Sequence[int]) -> dict[str, list[int]]:
    return {
        "input_ids": [*prompt, *answer],
        "labels": [-100] * len(prompt) + [*answer],
    }
