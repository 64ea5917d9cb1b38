"""One base or one expert, trained from what is on disk and written to disk with its manifest."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.errors import RunError
from rlmerge.sensitivity.extra import require

from .layout import Lab
from .models import ANSWER, accuracy, items_of, load_model, new_model, save_model, tokenizer
from .profiles import ARMS, Arm
from .rl import train_reinforced
from .sft import train_supervised
from .tasks import Question


def train_base(lab: Lab, seed: int, identity: str) -> None:
    """Train the base of ``seed`` on all tasks, with some wrong answers, so that it is able but unsure."""
    profile, started = lab.profile, time.perf_counter()
    model = new_model(profile, seed)
    questions = lab.questions("train")
    random = Random(f"base {seed}")
    weights = [profile.shares.get(name, 1.0) for name in lab.tasks]
    pairs: list[tuple[str, str]] = []
    for name in random.choices(lab.tasks, weights, k=profile.base_steps * profile.base_batch):
        question = random.choice(questions[name])
        said = question.slip if random.random() < profile.slips else random.choice(question.answers)
        pairs.append((question.prompt, said))
    train_supervised(
        model,
        pairs,
        steps=profile.base_steps,
        batch=profile.base_batch,
        rate=profile.base_rate,
        schedule="cosine",
        seed=seed,
        watch=lambda step: False,
    )
    record = {"arm": "base", "seed": seed, "steps": profile.base_steps, "learning_rate": profile.base_rate}
    _save(lab, model, lab.base(seed), record, identity, started)


def train_expert(lab: Lab, seed: int, name: str, task: str, identity: str) -> None:
    """Train the expert of ``task`` by the arm called ``name`` from the base of ``seed``.

    A matched arm stops at the accuracy of the reinforced expert of the same seed and task, which must be there.
    RunError when there is nothing to learn: a reward that is always the same, a base that is never right.
    """
    arm, profile, started = ARMS[name], lab.profile, time.perf_counter()
    model = load_model(lab.base(seed), arm.weights)
    questions = lab.questions("train")[task]
    Random(f"order {seed} {task}").shuffle(questions)
    held = items_of(lab.questions("dev")[task])
    target = _target(lab, seed, task) if arm.kind == "sft" and arm.matched else None
    curve = [(0, accuracy(model, held))]
    # A matched expert is stopped at the first look that reaches the target: the faster it learns, the closer they are.
    look = 10 if target is None else 2 if arm.rate == 1 else 1
    limit = {"rl": profile.rl_steps, "sft": profile.sft_limit if arm.matched else profile.long_steps}[arm.kind]

    def watch(step: int) -> bool:
        if step % look == 0 or step == limit:
            curve.append((step, accuracy(model, held)))
        return target is not None and curve[-1][1] >= target

    if arm.kind == "rl":
        train_reinforced(model, questions, arm, profile, seed, watch)
    elif target is None or curve[0][1] < target:
        train_supervised(
            model,
            _pairs(model, questions, arm, profile.rl_samples, seed, limit * profile.sft_batch),
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
    _save(lab, model, lab.expert(seed, name, task), record, identity, started)


def _target(lab: Lab, seed: int, task: str) -> float:
    manifest = lab.manifest(lab.expert(seed, "rl", task))
    if manifest is None:
        hint = "Train the arm 'rl' too; matched arms stop at its accuracy."
        raise RunError("the reinforced expert to match is not there", where=f"task '{task}'", hint=hint)
    return manifest["dev"][task]


def _pairs(
    model: Any, questions: Sequence[Question], arm: Arm, samples: int, seed: int, count: int
) -> list[tuple[str, str]]:
    """``count`` prompts with the answers an arm learns from, in passes over the questions."""
    if arm.data == "teacher":
        known = [(question.prompt, question.teacher) for question in questions]
    else:
        known = list(_own(model, questions, samples, seed))
        if not known:
            hint = "Train the base longer, or leave the arm out."
            raise RunError(
                "the base gave no valid answer to learn from", where=f"task '{questions[0].task}'", hint=hint
            )
    random, pairs = Random(f"pairs {seed}"), list[tuple[str, str]]()
    while len(pairs) < count:
        random.shuffle(known)
        pairs += known
    return pairs[:count]


def _own(model: Any, questions: Sequence[Question], samples: int, seed: int) -> Iterator[tuple[str, str]]:
    """Every valid answer among ``samples`` samples at temperature 1 to each question, as often as it was given."""
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
    for first in range(0, len(questions), 64):
        asked = questions[first : first + 64]
        batch = words([question.prompt for question in asked], return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            said = model.generate(
                batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=sampling
            )
        texts = words.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in enumerate(texts):
            question = asked[index // samples]
            if text in question.answers:
                yield question.prompt, text


def _save(lab: Lab, model: Any, out: Path, record: dict[str, Any], identity: str, started: float) -> None:
    """Write the model as it is stored, and what it scores then on the dev questions of every task."""
    dev = {name: accuracy(model, items_of(questions)) for name, questions in lab.questions("dev").items()}
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "reasoning-gym")}
    seconds = time.perf_counter() - started
    manifest = {
        **record,
        "dev": dev,
        "seconds": seconds,
        "digest": identity,
        "versions": {"python": platform.python_version(), **versions},
    }
    save_model(model, out, manifest)
