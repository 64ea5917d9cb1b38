"""Task specifications, as on a command line: which harness, which data, which task.

- ``exact:FILE.jsonl[:TASK]``: items with listed answers, scored exactly in NumPy; without a task all of the file's;
- ``lm-eval:NAME[:METRIC]``: any task of lm-evaluation-harness; ``gsm8k``, ``math500``, ``humaneval``, ``mbpp`` and
  ``ifeval`` alone are presets of it;
- ``gym:DATASET[?key=value&…]``: a reasoning-gym data set;
- ``command:NAME``: whatever the command of the options calls so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.evaluator import Evaluator
from rlmerge.evaluate.exact import Exact
from rlmerge.evaluate.generate import Sampling, make_generator
from rlmerge.evaluate.gym import Gym
from rlmerge.evaluate.harness.command import Command
from rlmerge.evaluate.harness.lm_eval import PRESETS, LmEval, find_program
from rlmerge.evaluate.harness.process import split_words
from rlmerge.frozen import frozen


@frozen(slots=True)
class Options:
    """How to score: the back end that generates, how it samples, and what harnesses are told.

    ``limit`` keeps the first items of each task, for a trial run. ``store`` keeps scores and the harnesses' own files,
    by default in the user's cache. ``command``, ``include_path``, ``lm_eval``, ``model_args``, ``lm_eval_args`` and
    ``unsafe_code`` are those of ``Command`` and ``LmEval``; ``timeout`` is in seconds for one call of a harness.
    """

    store: Path | None = None
    backend: str = "transformers"
    server: str | None = None
    device: str | None = None
    batch_size: int | None = None
    chat: bool = False
    samples: int = 4
    temperature: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    prompt: str = "default"
    limit: int | None = None
    command: str | None = None
    include_path: Path | None = None
    lm_eval: str | None = None
    model_args: str = ""
    lm_eval_args: str = ""
    unsafe_code: bool = False
    timeout: float | None = None

    @property
    def directory(self) -> Path:
        """The store's directory, by default ``$XDG_CACHE_HOME/rlmerge/eval`` or else below ``~/.cache``."""
        if self.store is not None:
            return self.store
        try:
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError as error:
            raise RequestError("there is no home directory to keep scores in", hint="Give --store DIR.") from error
        return Path(cache) / "rlmerge" / "eval"

    @property
    def sampling(self) -> Sampling:
        """How outputs are drawn; RequestError when a value is out of range."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            samples=self.samples,
            seed=self.seed,
            chat=self.chat,
        )


@frozen(slots=True)
class Job:
    """One task of one evaluator; reports call it ``label``."""

    evaluator: Evaluator
    task: str
    label: str


def read_tasks(specs: Sequence[str], options: Options) -> tuple[Job, ...]:
    """The jobs that ``specs`` ask for; RequestError, before anything is scored, when one of them cannot be done."""
    harnesses = _Harnesses(options)
    jobs = [(spec, job) for spec in specs for job in harnesses.jobs(spec)]
    if not jobs:
        raise RequestError("there is nothing to score", hint="Name tasks, such as --tasks exact:items.jsonl")
    short = [job.label for _, job in jobs]
    named = [replace(job, label=_long(spec, job)) if short.count(job.label) > 1 else job for spec, job in jobs]
    twice = next((job.label for job in named if [other.label for other in named].count(job.label) > 1), None)
    if twice is not None:
        raise RequestError("the task is given twice", where=twice, hint="Name every task once.")
    return tuple(named)


def _long(spec: str, job: Job) -> str:
    """A label that tells equal tasks of different harnesses or files apart."""
    kind, _, rest = spec.partition(":")
    return f"{kind}:{rest}" if kind != "exact" or rest.endswith(f":{job.task}") else f"{spec}:{job.task}"


class _Harnesses:
    """Makes each harness once, when a task first needs it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._kinds: dict[str, Callable[[str], list[Job]]] = {
            "exact": self._exact,
            "lm-eval": self._lm_eval_task,
            "gym": self._gym_task,
            "command": self._command_task,
        }

    def jobs(self, spec: str) -> list[Job]:
        kind, colon, rest = spec.partition(":")
        if not colon and kind in PRESETS:
            kind, rest = "lm-eval", spec
        elif kind not in self._kinds or not rest:
            hint = f"{did_you_mean(kind, [*self._kinds, *PRESETS])} A task is {_FORMS}."
            hint = f"Write exact:{spec}" if spec.endswith(".jsonl") else hint
            raise RequestError(f"unknown task {spec!r}", hint=hint)
        return self._kinds[kind](rest)

    def _exact(self, rest: str) -> list[Job]:
        name, _, task = rest.rpartition(":") if not Path(rest).is_file() else (rest, "", "")
        exact = Exact.read(Path(name or rest), self._options.limit)
        if task and name and task not in exact.tasks:
            raise RequestError(f"unknown task {task!r}", where=name, hint=did_you_mean(task, exact.tasks))
        return [Job(exact, found, found) for found in exact.tasks if found == task or not (task and name)]

    def _lm_eval_task(self, rest: str) -> list[Job]:
        self._lm_eval.check([rest])
        return [Job(self._lm_eval, rest, rest.partition(":")[0])]

    def _gym_task(self, rest: str) -> list[Job]:
        self._gym.check([rest])
        return [Job(self._gym, rest, rest.partition("?")[0])]

    def _command_task(self, rest: str) -> list[Job]:
        return [Job(self._command, rest, rest)]

    @cached_property
    def _lm_eval(self) -> LmEval:
        options = self._options
        default = "auto" if options.backend == "vllm" else "8"
        return LmEval(
            program=find_program(options.lm_eval),
            directory=options.directory / "lm-eval",
            backend=options.backend,
            server=options.server,
            model_args=options.model_args,
            include=options.include_path,
            batch_size=str(options.batch_size or default),
            device=options.device,
            limit=options.limit,
            chat=options.chat,
            unsafe_code=options.unsafe_code,
            extra=tuple(split_words(options.lm_eval_args)),
            timeout=options.timeout,
        )

    @cached_property
    def _gym(self) -> Gym:
        options = self._options
        generator = make_generator(
            options.backend,
            server=options.server,
            device=options.device or "auto",
            batch_size=options.batch_size or 32,
        )
        return Gym(generator, options.sampling, prompt=options.prompt, limit=options.limit)

    @cached_property
    def _command(self) -> Command:
        options = self._options
        if options.command is None:
            hint = "Add --command 'python my_eval.py {model} {tasks}', which prints JSON."
            raise RequestError("a task command:NAME needs --command", hint=hint)
        if options.limit is not None:
            raise RequestError(
                "--limit does not reach the program of --command", hint="Put the limit into the command."
            )
        return Command(options.command, options.directory / "command", options.timeout)


_FORMS = f"exact:FILE.jsonl[:TASK], lm-eval:NAME, gym:DATASET, command:NAME, {', '.join(PRESETS)}"
