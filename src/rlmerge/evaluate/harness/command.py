"""Any command that prints JSON: the way in for inspect-ai, evalchemy, verifiers, or a private harness."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.harness.process import STDOUT, failure, new_directory, run_harness, split_words
from rlmerge.evaluate.harness.results import parse_scores
from rlmerge.frozen import frozen

_LISTED = 8
_PLACEHOLDER = re.compile(r"\{(?:model|tasks|output)\}")


@frozen(slots=True)
class Command:
    """Scores models with a command line of the user's.

    In ``template``, split as a shell would but run without one, ``{model}`` becomes the model directory, ``{tasks}``
    the tasks with commas between, and ``{output}`` a path at which the command may write its JSON, a file or a
    directory with one; without ``{output}`` the JSON is read from stdout, where log lines may come before it.
    ``results`` says what shapes it may have. Files go into new folders of ``directory``.
    """

    template: str
    directory: Path
    timeout: float | None = None

    name = "command"

    def __post_init__(self) -> None:
        if not any("{model}" in word for word in split_words(self.template)):
            hint = "Put {model} where the model directory belongs: --command 'python my_eval.py {model} {tasks}'"
            raise RequestError("the command does not name the model", where=self.template, hint=hint)

    def identity(self) -> dict[str, object]:
        """The command, and a digest of every file that it names."""
        files = [path for word in split_words(self.template) if "{" not in word and (path := Path(word)).is_file()]
        return {"command": self.template, "files": {str(file): _file_digest(file) for file in files}}

    def score(self, model: Path, tasks: Sequence[str]) -> list[Score]:
        """The scores that the command gives; RunError when it fails, gives no JSON, no number, or not every task."""
        where = f"{', '.join(tasks)} on {model}"
        directory = new_directory(self.directory, model.name)
        output = directory / "scores.json"
        values = {"{model}": str(model), "{tasks}": ",".join(tasks), "{output}": str(output)}
        command = [_fill(word, values) for word in split_words(self.template)]
        run_harness(command, directory, where=where, timeout=self.timeout)
        text, source = self._text(output, directory)
        found = _last_json(text)
        if found is None:
            raise failure(f"gave no JSON in {source}", command, directory, where=where)
        scores: list[Score] = []
        for task in tasks:
            by_task = parse_scores(found, tasks, where=f"{source}, written for {where}")
            if task not in by_task:
                given = ", ".join(list(by_task)[:_LISTED]) or "nothing"
                raise failure(f"gave no score of task {task!r}; it gave {given}", command, directory, where=where)
            scores += by_task[task]
        return scores

    def _text(self, output: Path, directory: Path) -> tuple[str, Path]:
        """What the command said, and the file it said it in."""
        file = directory / STDOUT
        if "{output}" in self.template:
            written = sorted(output.rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
            file = written[-1] if written else output
        try:
            return file.read_text(encoding="utf-8", errors="replace"), file
        except OSError:
            return "", file


def _file_digest(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        what = f"is part of the command and cannot be read ({error.strerror})"
        raise RequestError(what, where=str(file), hint="Check its permissions.") from error


def _fill(word: str, values: Mapping[str, str]) -> str:
    """``word`` with its placeholders filled in once: braces in a path or a task mean nothing."""
    return _PLACEHOLDER.sub(lambda found: values[found.group()], word)


def _last_json(text: str) -> Any:
    """The JSON object or list that ``text`` is, or that ends it after lines of something else; None without one."""
    lines = text.strip().split("\n")
    starts = [index for index, line in enumerate(lines) if line[:1] in ("{", "[")]
    for first in [0, *reversed(starts)]:
        try:
            found = json.loads("\n".join(lines[first:]))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict | list):
            return found
    return None
