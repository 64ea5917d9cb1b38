"""One base or one expert, trained from what is on disk and written to disk with its manifest."""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.errors import RunError

from .arms import ARMS, Arm
from .directory import Lab
from .environment import Environment, Question
from .profiles import TEXT, Profile
from .trainers import train_reinforced, train_supervised


class Clock:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        """``seconds`` by the clock and ``cpu_seconds`` of this process since then."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def train_base(lab: Lab, seed: int, identity: str, device: str = "auto") -> None:
    """Train the base of ``seed`` on all tasks, with some wrong answers, so that it is able but unsure."""
    profile, environment, started = lab.profile, lab.environment(device), Clock()
    with enough_memory(lab.base(seed)):
        model = environment.new_model(seed)
        if profile.base_steps:
            train_supervised(
                environment,
                model,
                _base_examples(environment, profile, lab.questions("train"), seed),
                steps=profile.base_steps,
                batch=profile.base_batch,
                rate=profile.base_rate,
                schedule="cosine",
                seed=seed,
                watch=lambda step: False,
            )
        record = {"arm": "base", "seed": seed, "steps": profile.base_steps, "learning_rate": profile.base_rate}
        save(lab, environment, model, lab.base(seed), record, identity, started)


def train_expert(lab: Lab, seed: int, name: str, task: str, identity: str, device: str = "auto") -> None:
    """Train the expert of ``task`` by the arm called ``name`` from the base of ``seed``.

    A matched arm stops at the accuracy of the reinforced expert of the same seed and task, which must be there.
    RunError when there is nothing to learn: a reward that is always the same, a base that is never right.
    """
    arm, profile, environment, started = ARMS[name], lab.profile, lab.environment(device), Clock()
    with enough_memory(lab.expert(seed, name, task)):
        model = environment.load_model(lab.base(seed), arm)
        questions = lab.questions("train")[task]
        Random(f"order {seed} {task}").shuffle(questions)
        held = lab.questions("dev")[task]
        target = _target(lab, seed, task) if arm.kind == "sft" and arm.matched else None
        curve = [(0, environment.accuracy(model, held))]
        # A matched expert is stopped at the first look that reaches the target: the faster it learns, the closer they
        # are.
        look = environment.pace * (10 if target is None else 2 if arm.rate == 1 else 1)
        limit = {"rl": profile.rl_steps, "sft": profile.sft_limit if arm.matched else profile.long_steps}[arm.kind]

        def watch(step: int) -> bool:
            if step % look == 0 or step == limit:
                curve.append((step, environment.accuracy(model, held)))
            return target is not None and curve[-1][1] >= target

        if arm.kind == "rl":
            train_reinforced(environment, model, questions, arm, profile, seed, watch)
        elif target is None or curve[0][1] < target:
            pairs = _pairs(environment, model, questions, arm, profile.rl_samples, seed, limit * profile.sft_batch)
            train_supervised(
                environment,
                model,
                [environment.example(question, answer) for question, answer in pairs],
                steps=limit,
                batch=profile.sft_batch,
                rate=profile.rate * arm.rate,
                seed=seed,
                watch=watch,
            )
        record = {
            "arm": name,
            "task": task,
            "seed": seed,
            "steps": curve[-1][0],
            "learning_rate": profile.rate * arm.rate,
            "target": target,
            "stopped": "accuracy" if target is not None and curve[-1][1] >= target else "steps",
            "curve": curve,
        }
        save(lab, environment, model, lab.expert(seed, name, task), record, identity, started)


def _base_examples(
    environment: Environment[Any], profile: Profile, questions: dict[str, list[Any]], seed: int
) -> list[Any]:
    """What a base is trained on: questions of all tasks in the profile's shares, answered, and perhaps plain text."""
    random = Random(f"base {seed}")
    kinds = [*profile.tasks, *profile.held, *([TEXT] if TEXT in profile.shares else [])]
    weights = [profile.shares.get(name, 1.0) for name in kinds]
    rows: list[Any] = []
    for name in random.choices(kinds, weights, k=profile.base_steps * profile.base_batch):
        if name == TEXT:
            rows.append(environment.text_example(random))
            continue
        question = random.choice(questions[name])
        rows.append(environment.example(question, environment.base_answer(question, random)))
    return rows


def _target(lab: Lab, seed: int, task: str) -> float:
    manifest = lab.manifest(lab.expert(seed, "rl", task))
    if manifest is None:
        hint = "Train the arm 'rl' too; matched arms stop at its accuracy."
        raise RunError("the reinforced expert to match is not there", where=f"task '{task}'", hint=hint)
    return manifest["dev"][task]


def _pairs(
    environment: Environment[Any],
    model: Any,
    questions: Sequence[Question],
    arm: Arm,
    samples: int,
    seed: int,
    count: int,
) -> list[tuple[Question, str]]:
    """``count`` questions with the answers an arm learns from, in passes over the questions."""
    if arm.data == "teacher":
        known = [(question, question.teacher) for question in questions]
    else:
        known = list(environment.own_answers(model, questions, samples, seed))
        if not known:
            hint = "Train the base longer, or leave the arm out."
            raise RunError(
                "the base gave no valid answer to learn from", where=f"task '{questions[0].task}'", hint=hint
            )
    random, pairs = Random(f"pairs {seed}"), list[tuple[Question, str]]()
    while len(pairs) < count:
        random.shuffle(known)
        pairs += known
    return pairs[:count]


def save(
    lab: Lab,
    environment: Environment[Any],
    model: Any,
    out: Path,
    record: dict[str, Any],
    identity: str,
    started: Clock,
) -> None:
    """Write the model as it is stored, and what it scores then on the dev questions of every task."""
    dev = {name: environment.accuracy(model, questions) for name, questions in lab.questions("dev").items()}
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "reasoning-gym")}
    manifest = {
        **record,
        "dev": dev,
        **started.spent(),
        "digest": identity,
        "versions": {"python": platform.python_version(), **versions},
    }
    environment.save_model(model, out, manifest)


@contextmanager
def enough_memory(model: Path) -> Generator[None]:
    """Says what to lower when a device runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first = str(error).split("\n", 1)[0]
        if isinstance(error, RuntimeError) and "out of memory" not in first.lower():
            raise
        hint = "Train fewer models side by side (--workers 1), or give a smaller --model. What is finished is kept."
        raise RunError(f"not enough memory to train ({first})", where=str(model), hint=hint) from error
