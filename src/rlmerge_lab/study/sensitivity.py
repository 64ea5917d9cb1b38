"""Sensitivities of experts, measured on answers they sample themselves, for the methods that arbitrate by them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .cases import Case, Model, decided_by
from .scoring import Evaluation


def can_measure() -> bool:
    """Whether the packages that measuring stands on are installed."""
    return all(find_spec(name) is not None for name in ("torch", "transformers"))


def sensitivity_jobs(case: Case, prompts: int, folder: Path) -> tuple[SensitivityJob, ...]:
    """What measures each expert of a set on ``prompts`` prompts of its own task."""
    named = zip(case.tasks, case.experts, strict=True)
    return tuple(
        SensitivityJob(f"seed-{case.seed}.{case.arm}.{task}", expert, task, case.evaluations.dev, prompts, folder)
        for task, expert in named
    )


@dataclass(frozen=True, slots=True)
class SensitivityJob:
    """Measures the true Fisher, and Gram matrices, of one expert on ``prompts`` dev prompts of its own ``task``.

    One answer is drawn per prompt, of at most a token more than the longest valid one. ``folder`` takes the directory.
    """

    name: str
    model: Model
    task: str
    dev: Evaluation
    prompts: int
    folder: Path

    @property
    def label(self) -> str:
        return f"sensitivity.{self.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        asked = {"dev": self.dev.digest, "task": self.task, "prompts": self.prompts}
        return decided_by("sensitivity", model=self.model.digest, **asked)

    @property
    def cost(self) -> int:
        return 20 * self.prompts

    @property
    def digest(self) -> str:
        """Hex identity of what is measured."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def directory(self) -> Path:
        """Where the measurement lies; a directory of this name is complete."""
        return self.folder / f"{self.label}-{self.digest[:16]}"

    def run(self) -> dict[str, Any]:
        """Measure, unless a killed run got as far as that."""
        from rlmerge.sensitivity import measure
        from rlmerge.sensitivity.options import SensitivityOptions

        if not self.directory.exists():
            items = self.dev.items((self.task,))[: self.prompts]
            longest = max(len(answer) for item in items for answer in item.answers) + 2
            options = SensitivityOptions(
                mode="true", max_new_tokens=longest, batch_size=64, device="cpu", gram=True, force=True
            )
            with tempfile.TemporaryDirectory(prefix="rlmerge-study-") as folder:
                data = Path(folder) / "prompts.jsonl"
                data.write_text("\n".join(json.dumps({"prompt": item.prompt}) for item in items), encoding="utf-8")
                measure(self.model.path, str(data), self.directory, options)
        return {}
