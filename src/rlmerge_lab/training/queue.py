"""Trains what is missing, in processes side by side: bases, then reinforced experts, then what needs those."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from rlmerge.errors import RequestError, RlmergeError, RunError
from rlmerge.extras import require
from rlmerge.jsondata import digest
from rlmerge.progress import Progress, Quiet
from rlmerge_lab.jobs import THREADS, processes

from .arms import ARMS, STUDENTS
from .directory import Lab

CODE = 1
"""Raised when training changes, so that older experts are trained anew."""


Key = tuple[int, str, str | None]
"""Seed, arm and task of a model; bases and students have no task."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One model to train; ``identity`` is the digest of everything that decides it, its parents included."""

    seed: int
    arm: str
    task: str | None
    identity: str
    needs: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """What names the model."""
        return self.seed, self.arm, self.task

    def path(self, lab: Lab) -> Path:
        """Where the model belongs."""
        if self.task is not None:
            return lab.expert(self.seed, self.arm, self.task)
        return lab.student(self.seed, self.arm) if self.arm in STUDENTS else lab.base(self.seed)

    def __str__(self) -> str:
        return f"seed {self.seed} {self.arm}" + (f" {self.task}" if self.task else "")


def jobs_of(lab: Lab) -> list[TrainingJob]:
    """Every model of the laboratory, each after those it needs.

    RequestError when the arm 'rl' is left out, but something is matched to it or distilled from it.
    """
    needing = [name for name in lab.arms if ARMS[name].kind == "sft" and ARMS[name].matched] + [*lab.students]
    if needing and "rl" not in lab.arms:
        raise RequestError(f"the profile trains '{needing[0]}', which needs the arm 'rl', without that arm")
    decides, data = lab.environment().identity(), lab.data_digest()
    bases = {
        seed: TrainingJob(seed, "base", None, digest([CODE, "base", seed, decides["base"], data])) for seed in lab.seeds
    }
    jobs = list(bases.values())
    made: dict[Key, TrainingJob] = {}
    # Matched arms stop at the accuracy of the arm 'rl'.
    arms = sorted(lab.arms, key=lambda name: ARMS[name].kind == "sft")
    for seed in lab.seeds:
        for name in arms:
            arm = ARMS[name]
            for task in lab.tasks:
                parents = [bases[seed]]
                if arm.kind == "sft" and arm.matched:
                    parents.append(made[seed, "rl", task])
                content = [CODE, arm.identity, seed, task, decides[arm.kind], data, [one.identity for one in parents]]
                job = TrainingJob(seed, name, task, digest(content), tuple(one.key for one in parents))
                made[job.key] = job
                jobs.append(job)
        for name in lab.students:
            how = [STUDENTS[name].start, lab.profile.distil_tokens]
            parents = [bases[seed], *(made[seed, "rl", task] for task in lab.tasks)]
            content = [CODE, "student", how, seed, lab.tasks, decides["rl"], data, [one.identity for one in parents]]
            jobs.append(TrainingJob(seed, name, None, digest(content), tuple(one.key for one in parents)))
    return jobs


def missing(lab: Lab, jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Those of ``jobs`` whose model is not there, unfinished, or was trained otherwise."""
    return [job for job in jobs if (lab.manifest(job.path(lab)) or {}).get("digest") != job.identity]


def train_all(lab: Lab, *, workers: int | None = None, progress: Progress | None = None, device: str = "auto") -> int:
    """Train every missing model of ``lab``, ``workers`` at a time, and say how many that were.

    ``device`` is where language models compute: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``. A model is
    finished or absent, so a run that was killed goes on where it stopped. RunError when one of them cannot be trained;
    those that do not need it are trained nevertheless.
    """
    progress = progress or Quiet()
    jobs = jobs_of(lab)
    waiting = {job.key: job for job in missing(lab, jobs)}
    total, failed = len(waiting), dict[str, str]()
    if not waiting:
        return 0
    environment = lab.environment(device)
    environment.prepare(progress)
    workers = workers or environment.processes()
    threads = environment.threads(workers)
    environment = dict.fromkeys(THREADS, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    environment["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "1")
    progress.start("train", total, "models")
    with processes(workers, environment) as pool:
        running: dict[Future[float], TrainingJob] = {}
        while waiting or running:
            for job in list(_ready(waiting, {one.key for one in running.values()})):
                running[pool.submit(_train, lab, job, device, threads)] = waiting.pop(job.key)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    progress.message(f"{job}: trained in {future.result():.0f} s")
                except BrokenProcessPool:
                    hint = "Memory may have run out: try --workers 1. What was finished is kept; run the command again."
                    raise RunError("a training process died", where=str(job), hint=hint) from None
                except (RlmergeError, OSError, RuntimeError) as error:
                    failed[str(job)] = str(error)
                    progress.message(f"{job}: {error}")
                    _drop(waiting, job)
                progress.advance(1)
    progress.done()
    if failed:
        left = len(missing(lab, jobs))
        hint = f"{total - left} models were trained and are kept; the same command trains the other {left}."
        what = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise RunError(f"{len(failed)} models could not be trained: {what}", where=str(lab.root), hint=hint)
    return total


def _ready(waiting: dict[Key, TrainingJob], running: set[Key]) -> Iterator[TrainingJob]:
    """Jobs whose parents are neither waiting nor running."""
    for job in waiting.values():
        if not any(need in waiting or need in running for need in job.needs):
            yield job


def _drop(waiting: dict[Key, TrainingJob], failed: TrainingJob) -> None:
    """Forget the jobs that need ``failed``, and those that need them."""
    for job in [job for job in waiting.values() if failed.key in job.needs]:
        if waiting.pop(job.key, None) is not None:
            _drop(waiting, job)


def _train(lab: Lab, job: TrainingJob, device: str, threads: int) -> float:
    """In a process of its own: train one model; the seconds it took."""
    import logging
    import warnings

    from .distil import train_student
    from .train import train_base, train_expert

    require("torch").set_num_threads(threads)
    require("transformers").utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    if job.task is not None:
        train_expert(lab, job.seed, job.arm, job.task, job.identity, device)
    elif job.arm in STUDENTS:
        train_student(lab, job.seed, job.arm, job.identity, device)
    else:
        train_base(lab, job.seed, job.identity, device)
    return time.perf_counter() - started
