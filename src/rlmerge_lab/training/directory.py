"""Where the laboratory keeps what it made: one directory with data, bases, experts and the study."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.jsondata import digest, write_text
from rlmerge_lab.store import MANIFEST

from .environment import Environment, Question, environment_of
from .profiles import Profile

SCHEMA = "rlmerge.lab/1"


@dataclass(frozen=True, slots=True)
class Lab:
    """A laboratory directory and the profile it was made for."""

    root: Path
    profile: Profile

    @classmethod
    def create(cls, root: Path, profile: Profile) -> Lab:
        """The laboratory in ``root`` for ``profile``, with its questions written, new or as it was left.

        One of fewer seeds, arms or students grows. RequestError when the directory is of another profile, or of
        something else.
        """
        if (root / MANIFEST).exists():
            return cls.open(root)._grow(profile)
        lab = cls(root, profile)
        # Questions without a manifest are what a kill left of this very step.
        if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {"data"}):
            hint = "Choose a new or empty directory with -o."
            raise RequestError("exists and is not a laboratory directory", where=str(root), hint=hint)
        lab.environment().check()
        drawn = lab.environment().draw_questions()
        (root / "data").mkdir(parents=True, exist_ok=True)
        for split, questions in drawn.items():
            lines = (json.dumps(question) for question in questions)
            write_text(lab.items(split), "\n".join(lines) + "\n")
        return lab._sign()

    @classmethod
    def open(cls, root: Path) -> Lab:
        """The laboratory that is in ``root``; RequestError when there is none."""
        file = root / MANIFEST
        hint = "Make one: rlmerge lab train -o DIR --profile quick"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise RequestError(f"is {content['schema']}, not {SCHEMA}", where=str(file), hint=hint)
            return cls(root, Profile.from_dict(content["profile"]))
        except OSError as error:
            raise RequestError("holds no laboratory", where=str(root), hint=hint) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"cannot be understood ({error!r})", where=str(file), hint=hint) from error

    def _grow(self, profile: Profile) -> Lab:
        """This laboratory with what ``profile`` has more of; all else but words must be the same."""
        mine = self.profile
        more = {
            "seeds": tuple(sorted({*mine.seeds, *profile.seeds})),
            "arms": tuple(dict.fromkeys((*mine.arms, *profile.arms))),
            "students": tuple(dict.fromkeys((*mine.students, *profile.students))),
        }
        if replace(mine, about=profile.about, **{name: getattr(profile, name) for name in more}) != profile:
            hint = "Give each profile its own directory with -o."
            what = f"holds the laboratory of another profile, '{mine.name}'"
            raise RequestError(what, where=str(self.root), hint=hint)
        grown = replace(mine, **more)
        return self if grown == mine else replace(self, profile=replace(grown, about=profile.about))._sign()

    def _sign(self) -> Lab:
        content = {"schema": SCHEMA, "profile": self.profile.to_dict()}
        write_text(self.root / MANIFEST, json.dumps(content, indent=1) + "\n")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, each with its own base."""
        return self.profile.seeds

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.profile.tasks

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms experts were trained by."""
        return self.profile.arms

    @property
    def students(self) -> tuple[str, ...]:
        """Names of the students that were distilled from the reinforced experts."""
        return self.profile.students

    def base(self, seed: int) -> Path:
        """Directory of a seed's base."""
        return self.root / f"seed-{seed}" / "base"

    def expert(self, seed: int, arm: str, task: str) -> Path:
        """Directory of an expert."""
        return self.root / f"seed-{seed}" / arm / task

    def student(self, seed: int, name: str) -> Path:
        """Directory of a student."""
        return self.root / f"seed-{seed}" / name

    def items(self, split: str) -> Path:
        """The questions of ``dev``, ``test`` or ``train``, as ``rlmerge.evaluate.exact.read_items`` reads them."""
        return self.root / "data" / f"{split}.jsonl"

    def environment(self, device: str = "auto") -> Environment[Any]:
        """What is trained and judged here; language models compute on ``device``."""
        return environment_of(self.profile, self.root, device)

    def questions(self, split: str) -> dict[str, list[Any]]:
        """The questions of a split, by task; see ``environment.Question``."""
        found: dict[str, list[Any]] = {name: [] for name in (*self.tasks, *self.profile.held)}
        environment: Environment[Question] = self.environment()
        for line in self.items(split).read_text(encoding="utf-8").splitlines():
            question = environment.parse_question(json.loads(line))
            found[question.task].append(question)
        return found

    def manifest(self, model: Path) -> dict[str, Any] | None:
        """How ``model`` was trained; None when it is absent or unfinished."""
        try:
            return json.loads((model / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def data_digest(self) -> str:
        """Identity of the questions experts are trained on and stopped by."""
        return digest([hashlib.sha256(self.items(split).read_bytes()).hexdigest() for split in ("dev", "train")])
