"""Outputs from vLLM, where it is installed.

vLLM runs in a process of its own for each model: ending that process is the one sure way to get a GPU's memory back.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.causal import encode_text, load_tokenizer
from rlmerge.evaluate.generate import Sample, check_request, random_streams

_PATIENCE = 60.0
"""Seconds a process gets to end by itself before it is killed."""


class VllmGenerator:
    """Keeps vLLM running with the last model it was asked for, until another is or the generator is closed."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        if importlib.util.find_spec("vllm") is None:
            hint = "pip install vllm, or use --backend transformers."
            raise RequestError("this needs the package 'vllm', which is not installed", hint=hint)

    def identity(self) -> Mapping[str, Any]:
        try:
            return {"backend": "vllm", "vllm": version("vllm")}
        except PackageNotFoundError:  # on the path without being installed
            return {"backend": "vllm", "vllm": None}

    def generate(
        self,
        model: Path,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float,
        samples: int,
        seed: int,
        chat: bool,
    ) -> list[list[Sample]]:
        check_request(prompts, max_new_tokens, temperature, samples)
        tokenizer = load_tokenizer(model)
        starts = [encode_text(tokenizer, prompt, str(model), chat=chat) for prompt in prompts]
        worker = self._running(model, max(map(len, starts)) + max_new_tokens)
        keys = random_streams(prompts, samples, seed)
        answers = worker.ask(
            {
                "prompts": [list(start) for start in starts for _ in range(samples)],
                # 31 bits: some kernels keep the seed in a signed integer.
                "seeds": [key[0] >> 1 for own in keys for key in own],
                "max_tokens": max_new_tokens,
                "temperature": temperature,
            }
        )
        made = iter(answers)
        return [[_sample(prompt, next(made)) for _ in range(samples)] for prompt in prompts]

    def close(self) -> None:
        """End vLLM's process and free the GPU."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __del__(self) -> None:
        self.close()

    def _running(self, model: Path, length: int) -> _Worker:
        """The process that holds ``model`` with room for ``length`` tokens a sequence."""
        if self._worker is None or self._worker.model != model.resolve() or self._worker.length < length:
            self.close()
            self._worker = _Worker(model.resolve(), length)
        return self._worker


class _Worker:
    """A process that holds one model and answers each line of JSON with one."""

    def __init__(self, model: Path, length: int) -> None:
        self.model, self.length = model, length
        # What vLLM prints goes to a file: a pipe that nobody empties would stop it.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rlmerge.evaluate.vllm_worker", str(model), str(length)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def ask(self, request: Mapping[str, Any]) -> list[Any]:
        """The worker's answer; RunError with the end of its output when it fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            tail = "\n".join(self._log.read().decode(errors="replace").splitlines()[-15:])
            hint = "Use --backend transformers if vLLM does not support the model."
            raise RunError(f"vLLM ended with status {code}:\n{tail}", where=str(self.model), hint=hint)
        return json.loads(line)

    def close(self) -> None:
        """End the process, and kill it if it does not."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
            self._process.wait(_PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._log.close()


def _sample(prompt: str, made: Sequence[Any]) -> Sample:
    text, tokens, stopped = made
    return Sample(prompt, str(text), tuple(tokens), bool(stopped))
