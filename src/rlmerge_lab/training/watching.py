"""A trainer's step, watched from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlmerge.extras import require


def watching(watch: Callable[[int], bool]) -> Any:
    """A callback for Hugging Face trainers: ``watch(step)`` after each optimizer step; True ends the training."""
    transformers = require("transformers")

    class Watching(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if watch(state.global_step):
                control.should_training_stop = True
            return control

    return Watching()
