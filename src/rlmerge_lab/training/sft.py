"""Supervised training with TRL's SFTTrainer: the base, and the supervised experts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlmerge.extras import require
from rlmerge_lab.training.environment import World

Watch = Callable[[int], bool]
"""Called after each optimizer step with its number; True ends the training."""


def train_supervised(
    world: World[Any],
    model: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    watch: Watch,
    schedule: str = "constant",
) -> None:
    """Train ``model`` in place on supervised examples, the ``rows`` of ``world``, ``batch`` of them a step."""
    trl = require("trl")
    from rlmerge_lab.training.watching import watching

    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                learning_rate=rate,
                lr_scheduler_type=schedule,
                weight_decay=0.0,
                seed=seed,
                dataset_kwargs={"skip_prepare_dataset": True},
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **world.trainer(model, batch),
            ),
            train_dataset=require("datasets").Dataset.from_list(list(rows)),
            processing_class=world.tokenizer(),
            callbacks=[watching(watch)],
        )
        trainer.remove_callback(require("transformers").PrinterCallback)
        trainer.train()
