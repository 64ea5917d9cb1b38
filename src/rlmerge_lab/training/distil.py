"""All reinforced experts of a seed distilled into one student, on the student's own samples.

The other way to one model of all tasks: what merging does without a token, distillation does with many, from the base
or from a merge.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import rlmerge
from rlmerge.extras import require

from .arms import ARMS, STUDENTS, Student
from .directory import Lab
from .environment import Environment, Question
from .train import Clock, enough_memory, save

LAMBDAS = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
"""Coefficients that a starting merge is tuned over, on dev."""

LOOKS = 16
"""Looks at the student's accuracy after the first: the i-th is due after (i / LOOKS)² of all tokens, early ones close
together, since that is where distillation is fast."""

_PARENT = "rl"


def train_student(lab: Lab, seed: int, name: str, identity: str, device: str = "auto") -> None:
    """Train the student called ``name`` from the reinforced experts of ``seed``, which must be there.

    It stops after the profile's ``distil_tokens`` generated tokens. Its manifest has a ``curve`` of rows
    [tokens generated so far, {task: accuracy on dev}], the first of them before any training, and for a merge to start
    at its tuned ``lambda`` with the mean accuracy on dev of every ``trial``.
    """
    student, profile, environment, started = STUDENTS[name], lab.profile, lab.environment(device), Clock()
    with enough_memory(lab.student(seed, name)), tempfile.TemporaryDirectory(prefix="rlmerge-lab-") as scratch:
        start, trials = _start(lab, environment, student, seed, Path(scratch))
        teachers = {
            task: environment.load_model(lab.expert(seed, _PARENT, task), ARMS[_PARENT]).requires_grad_(False)
            for task in lab.tasks
        }
        model = environment.load_model(start, ARMS[_PARENT])  # last, so that the tokenizer is its own
        dev, train = lab.questions("dev"), lab.questions("train")

        def look() -> dict[str, float]:
            return {task: environment.accuracy(model, questions) for task, questions in dev.items()}

        curve, steps = [(0, look())], 0
        questions = {task: train[task] for task in lab.tasks}
        training = distil(environment, model, teachers, questions, profile.rl_prompts, profile.rate, seed)
        while curve[-1][0] < profile.distil_tokens:
            tokens, steps = next(training), steps + 1
            if tokens >= profile.distil_tokens * min(1.0, (len(curve) / LOOKS) ** 2):
                curve.append((tokens, look()))
        record = {
            "arm": name,
            "seed": seed,
            "start": student.start or "base",
            "lambda": max(trials, key=trials.__getitem__) if trials else None,
            "trials": [[coefficient, found] for coefficient, found in trials.items()],
            "steps": steps,
            "tokens": curve[-1][0],
            "learning_rate": profile.rate,
            "curve": curve,
        }
        save(lab, environment, model, lab.student(seed, name), record, identity, started)


def _start(
    lab: Lab, environment: Environment[Any], student: Student, seed: int, scratch: Path
) -> tuple[Path, dict[float, float]]:
    """Where the student starts, and the mean accuracy on dev of every coefficient that was tried for it."""
    method = student.start
    if method is None:
        return lab.base(seed), {}
    experts = [{"model": str(lab.expert(seed, _PARENT, task))} for task in lab.tasks]

    def merge(coefficient: float, out: Path) -> Path:
        recipe = {
            "merge_method": method,
            "base_model": str(lab.base(seed)),
            "models": experts,
            "parameters": {"lambda": coefficient},
        }
        with warnings.catch_warnings():
            # What a merge has to say about a coefficient is for someone who chose it.
            warnings.simplefilter("ignore")
            rlmerge.merge(recipe, out, seed=seed, workers=1, cache=False)
        return out

    dev, found = lab.questions("dev"), dict[float, float]()
    for coefficient in LAMBDAS:
        with tempfile.TemporaryDirectory(dir=scratch) as trial:
            model = environment.load_model(merge(coefficient, Path(trial) / "merged"), ARMS[_PARENT])
            scores = [environment.accuracy(model, dev[task]) for task in lab.tasks]
        found[coefficient] = sum(scores) / len(scores)
    return merge(max(found, key=found.__getitem__), scratch / "merged"), found


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts and what a model answered: token ``ids`` [n, prompt + answer], of which ``seen`` are no padding, and
    which of the answer's tokens were ``said`` [n, answer], the end among them."""

    ids: Any
    seen: Any
    said: Any


def distil(
    environment: Environment[Any],
    student: Any,
    teachers: Mapping[str, Any],
    questions: Mapping[str, Sequence[Question]],
    prompts: int,
    rate: float,
    seed: int,
) -> Iterator[int]:
    """Train ``student`` in place, without end; the tokens that it has generated, after each step.

    In each step it answers ``prompts`` of the ``questions`` of every task once, at temperature 1, and takes an AdamW
    step down the mean over all generated tokens of KL(student ‖ teacher of the task), the ``divergence`` of the two
    distributions over the vocabulary: on-policy, nothing estimated. Gradients are cut to a norm of 1, as TRL does.
    """
    torch, random = require("torch"), Random(f"distil {seed}")
    torch.manual_seed(seed)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    generated = 0
    while True:
        asked = {task: random.choices(questions[task], k=prompts) for task in teachers}
        answered = {task: sample(environment, student, found) for task, found in asked.items()}
        count = sum(int(samples.said.sum()) for samples in answered.values())
        optimizer.zero_grad()
        for task, samples in answered.items():
            (divergence(student, teachers[task], samples).sum() / count).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        generated += count
        yield generated


def sample(environment: Environment[Any], model: Any, questions: Sequence[Question]) -> Samples:
    """One answer of ``model`` to each question at temperature 1."""
    torch, words = require("torch"), environment.tokenizer()
    prompts = [environment.prompt(question) for question in questions]
    how: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
    if isinstance(prompts[0], str):
        batch = words(prompts, **how)
    else:
        batch = words.apply_chat_template(prompts, add_generation_prompt=True, return_dict=True, **how)
    device = next(model.parameters()).device
    ids, seen = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    configured = model.generation_config.eos_token_id
    ends = {words.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    sampling = require("transformers").GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=environment.answer_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=words.pad_token_id,
    )
    with torch.no_grad():
        ids = model.generate(input_ids=ids, attention_mask=seen, generation_config=sampling)
    end = torch.isin(ids[:, seen.shape[1] :], torch.tensor(sorted(ends), device=device)).long()
    said = end.cumsum(1) - end == 0
    return Samples(ids, torch.cat([seen, said.to(seen.dtype)], 1), said)


def divergence(student: Any, teacher: Any, samples: Samples) -> Any:
    """KL(student ‖ teacher) in nats before each token of the answers [n, answer], 0 after their end.

    The sum over the whole vocabulary in float32. Gradients reach the student.
    """
    torch = require("torch")
    own = _logits(student, samples).log_softmax(-1)
    with torch.no_grad():
        others = _logits(teacher, samples).log_softmax(-1)
    return (own.exp() * (own - others)).sum(-1) * samples.said


def _logits(model: Any, samples: Samples) -> Any:
    """Logits [n, answer, vocabulary] that the answers' tokens are drawn from."""
    positions = (samples.seen.cumsum(1) - 1).clamp(min=0)
    kept = samples.said.shape[1] + 1
    found = model(input_ids=samples.ids, attention_mask=samples.seen, position_ids=positions, logits_to_keep=kept)
    return found.logits[:, :-1].float()
