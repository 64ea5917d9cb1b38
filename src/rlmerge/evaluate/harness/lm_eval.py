"""lm-evaluation-harness as a program of its own: its JSON is kept untouched, its scores are read from it.

Run as a subprocess, it may live in another environment and change its Python interface without harm here. Needs
lm-eval 0.4 or later. Data sets come from the user's cache; tasks of one's own from a directory of YAML files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from rlmerge.errors import RequestError, RunError, did_you_mean
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.harness.process import STDERR, failure, new_directory, run_harness, tail
from rlmerge.evaluate.harness.results import read_lm_eval
from rlmerge.frozen import frozen


@frozen(slots=True)
class Preset:
    """A well-known benchmark: its task in lm-eval, plain and for chat models, and the metric to judge by."""

    task: str
    chat: str
    metric: str
    runs_code: bool = False


PRESETS = {
    "gsm8k": Preset("gsm8k", "gsm8k", "exact_match,flexible-extract"),
    "math500": Preset("minerva_math500", "minerva_math500", "math_verify"),
    "humaneval": Preset("humaneval", "humaneval_instruct", "pass@1", runs_code=True),
    "mbpp": Preset("mbpp", "mbpp_instruct", "pass_at_1", runs_code=True),
    "ifeval": Preset("ifeval", "ifeval", "prompt_level_strict_acc"),
}
"""Benchmarks by short name; any other task of lm-eval goes by its own."""

BACKENDS = {"transformers": "hf", "vllm": "vllm", "server": "local-completions"}
"""What lm-eval calls each back end."""


@frozen(slots=True)
class LmEval:
    """Scores models with lm-evaluation-harness.

    ``program`` starts it; its files go into new folders of ``directory``. ``model_args`` are added to lm-eval's own
    (``dtype=bfloat16,tensor_parallel_size=2``), ``include`` is a directory of task YAML files, ``extra`` goes onto the
    command line as it is. With ``chat`` prompts go through the model's chat template. ``unsafe_code`` allows the tasks
    that run code which the model wrote.
    """

    program: tuple[str, ...]
    directory: Path
    backend: str = "transformers"
    server: str | None = None
    model_args: str = ""
    include: Path | None = None
    batch_size: str = "8"
    device: str | None = None
    limit: int | None = None
    chat: bool = False
    unsafe_code: bool = False
    extra: tuple[str, ...] = ()
    timeout: float | None = None

    name = "lm-eval"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise RequestError(f"unknown lm-eval back end {self.backend!r}", hint=did_you_mean(self.backend, BACKENDS))
        if self.backend == "server" and self.server is None:
            hint = "Add --server http://localhost:8000/v1."
            raise RequestError("a server back end needs the server's address", hint=hint)
        if self.include is not None and not self.include.is_dir():
            raise RequestError("no such directory of lm-eval tasks", where=str(self.include), hint="Check the path.")

    def identity(self) -> dict[str, object]:
        """Versions, options, and a digest of the files in ``include``; not of data that lies elsewhere."""
        return {
            "versions": _versions(self.program),
            "backend": [self.backend, self.server],
            "options": [self.model_args, self.batch_size, self.device, self.limit, self.chat, list(self.extra)],
            "include": None if self.include is None else _tree_digest(self.include),
        }

    def check(self, tasks: Sequence[str]) -> None:
        """RequestError when one of ``tasks`` would run a model's code and that was not allowed."""
        for task in tasks:
            preset = PRESETS.get(task.partition(":")[0])
            if preset is not None and preset.runs_code and not self.unsafe_code:
                hint = "Add --unsafe-code if this machine may run it, best inside a container."
                raise RequestError("runs code that the model writes", where=f"lm-eval:{task}", hint=hint)

    def score(self, model: Path, tasks: Sequence[str]) -> list[Score]:
        """Every metric of each task, the preset's or the chosen one first."""
        self.check(tasks)
        wanted = [self._wanted(task) for task in tasks]
        where = f"{', '.join(tasks)} on {model}"
        if "," in str(model) and self.backend != "server":
            hint = "Rename it, or give a symbolic link to it."
            raise RequestError("lm-eval cannot read a model path with a comma", where=str(model), hint=hint)
        directory = new_directory(self.directory, f"{model.name}-{tasks[0]}")
        command = self._command(model, [name for name, _ in wanted], directory)
        environment = {"HF_ALLOW_CODE_EVAL": "1"} if self.unsafe_code else {}
        try:
            run_harness(command, directory, where=where, environment=environment, timeout=self.timeout)
        except RunError as error:
            raise _explain(error, tail(directory / STDERR)) from None
        found = max(directory.rglob("results_*.json"), default=None)
        if found is None:
            raise failure("ended well but wrote no results", command, directory, where=where)
        return [
            score
            for task, (name, metric) in zip(tasks, wanted, strict=True)
            for score in read_lm_eval(found, name, metric, label=task)
        ]

    def _wanted(self, task: str) -> tuple[str, str | None]:
        """lm-eval's name of a task, and the metric that was asked for."""
        name, _, metric = task.partition(":")
        preset = PRESETS.get(name)
        if preset is None:
            return name, metric or None
        return preset.chat if self.chat else preset.task, metric or preset.metric

    def _command(self, model: Path, tasks: Sequence[str], output: Path) -> list[str]:
        kind, place = BACKENDS[self.backend], f"pretrained={model}"
        if self.backend == "server":
            kind = "local-chat-completions" if self.chat else kind
            path = "chat/completions" if self.chat else "completions"
            place = f"model={model},tokenizer={model},base_url={str(self.server).rstrip('/')}/{path}"
        arguments = ",".join(part for part in (place, self.model_args) if part)
        command = [*self.program, "--model", kind, "--model_args", arguments, "--tasks", ",".join(tasks)]
        command += ["--output_path", str(output), "--log_samples", "--batch_size", self.batch_size]
        for flag, value in (("--include_path", self.include), ("--device", self.device), ("--limit", self.limit)):
            command += [] if value is None else [flag, str(value)]
        command += ["--apply_chat_template"] if self.chat else []
        command += ["--confirm_run_unsafe_code"] if self.unsafe_code else []
        return [*command, *self.extra]


def find_program(program: str | None = None) -> tuple[str, ...]:
    """How to start lm-eval: ``program``, or ``lm_eval`` on the path, or this Python's; RequestError without one."""
    if program is not None:
        found = shutil.which(program)
        if found is None:
            raise RequestError(
                "there is no such program", where=program, hint="Give the path of lm_eval in its environment."
            )
        return (found,)
    found = shutil.which("lm_eval") or shutil.which("lm-eval")
    if found:
        return (found,)
    if importlib.util.find_spec("lm_eval"):
        return (sys.executable, "-m", "lm_eval")
    hint = "Run: pip install 'lm-eval[hf]' (any environment will do; name its program with --lm-eval PATH/bin/lm_eval)"
    raise RequestError("lm-evaluation-harness is not installed", hint=hint)


@cache
def _versions(program: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of the packages that decide lm-eval's scores, in the environment the program runs in."""
    start, *module = program
    python = start
    if not module:
        with Path(start).open("rb") as file:
            first = file.readline(512).decode(errors="replace").strip()
        python = first.removeprefix("#!") if first.startswith("#!") and "python" in first else ""
    code = (
        "import json; from importlib import metadata as m\n"
        "names = {d.metadata['Name'].lower().replace('-', '_'): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: names[n] for n in ('lm_eval', 'torch', 'transformers', 'vllm') if n in names}))"
    )
    try:
        done = subprocess.run([*python.split(), "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"program": hashlib.sha256(Path(start).read_bytes()).hexdigest()}


def _tree_digest(directory: Path) -> str:
    """Hex SHA-256 of every file below ``directory`` with its name."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(directory).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _explain(error: RunError, said: Sequence[str]) -> RunError | RequestError:
    """The failure with the reason put first where the harness's last line has a well-known one."""
    last = said[-1] if said else ""
    if "Tasks not found" in last:
        hint = "See: lm_eval ls tasks. For tasks of your own add --include-path DIR."
        return RequestError(f"unknown lm-eval task ({last})", where=error.where, hint=hint)
    if re.search(r"Couldn't reach|OfflineModeIsEnabled|MaxRetryError|ConnectionError", last):
        what = f"lm-eval could not reach its data ({last})"
        hint = "Run it once with a network to fill the cache, then set HF_HUB_OFFLINE=1; finished scores are kept."
        return RunError(what, where=error.where, hint=hint)
    return error
