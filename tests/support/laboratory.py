"""A laboratory whose models are the example checkpoints, so that studies run on really trained experts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"
BASE = CHECKPOINTS / "base"
TASKS = ("rev", "cnt", "shift")
FOLDERS = {"rl": "rl", "rl-bf16": "rl-bf16", "sft": "sft-matched"}


@dataclass(frozen=True)
class ExampleLab:
    """What a study asks of a laboratory; every seed has the same models."""

    root: Path
    seeds: tuple[int, ...] = (0,)
    tasks: tuple[str, ...] = TASKS
    arms: tuple[str, ...] = ("rl", "sft")
    held: tuple[str, ...] = ()
    students: tuple[str, ...] = ()

    @property
    def profile(self) -> SimpleNamespace:
        return SimpleNamespace(name="example", gym={}, held=self.held)

    def base(self, seed: int) -> Path:
        return BASE

    def expert(self, seed: int, arm: str, task: str) -> Path:
        return CHECKPOINTS / f"{FOLDERS[arm]}-{task}"

    def student(self, seed: int, name: str) -> Path:
        return CHECKPOINTS / f"{FOLDERS['rl']}-{self.tasks[0]}"

    def items(self, split: str) -> Path:
        return CHECKPOINTS / "data" / f"{split}.jsonl"

    def manifest(self, model: Path) -> dict[str, Any]:
        curve = [[tokens, dict.fromkeys(self.tasks, 0.5 + tokens / 1e4)] for tokens in (0, 1000)]
        return {"steps": 120, "stopped": "steps", "seconds": 36.0, "versions": {"torch": "2.0"}, "curve": curve}


def experts(arm: str = "rl", tasks: tuple[str, ...] = TASKS) -> list[Path]:
    """Directories of the example experts of an arm."""
    return [CHECKPOINTS / f"{FOLDERS[arm]}-{task}" for task in tasks]
