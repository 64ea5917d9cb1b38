"""Outputs from vLLM, where it is installed.

vLLM runs in a process of its own for each model: ending that process is the one sure way to get a GPU's memory back.
``python -m rlmerge.evaluate.generate.vllm MODEL LENGTH`` is that process: JSON lines in and out.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import Sample, Sampling, check_prompts
from rlmerge.evaluate.harness.process import GuardedProcess
from rlmerge.language.model import load_tokenizer
from rlmerge.language.tokens import encode_text

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

    def generate(self, model: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[Sample]]:
        check_prompts(prompts)
        tokenizer = load_tokenizer(model)
        starts = [encode_text(tokenizer, prompt, str(model), chat=sampling.chat) for prompt in prompts]
        worker = self._running(model, max(map(len, starts)) + sampling.max_new_tokens)
        answers = worker.ask(
            {
                "prompts": [list(start) for start in starts for _ in range(sampling.samples)],
                # 31 bits: some kernels keep the seed in a signed integer.
                "seeds": [key[0] >> 1 for own in sampling.streams(prompts) for key in own],
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
            }
        )
        made = iter(answers)
        return [[_sample(prompt, next(made)) for _ in range(sampling.samples)] for prompt in prompts]

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
        self._guarded = GuardedProcess(
            [sys.executable, "-m", "rlmerge.evaluate.generate.vllm", str(model), str(length)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        process = self._guarded.process
        assert process.stdin is not None and process.stdout is not None
        self._requests, self._answers = process.stdin, process.stdout

    def ask(self, request: Mapping[str, Any]) -> list[Any]:
        """The worker's answer; RunError with the end of its output when it fails."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        except BaseException:  # an interrupt: the process, in a session of its own, did not see it
            self._guarded.end()
            raise
        if not line:
            code = self._guarded.process.wait()
            self._log.seek(0)
            tail = "\n".join(self._log.read().decode(errors="replace").splitlines()[-15:])
            hint = "Use --backend transformers if vLLM does not support the model."
            raise RunError(f"vLLM ended with status {code}:\n{tail}", where=str(self.model), hint=hint)
        return json.loads(line)

    def close(self) -> None:
        """End the process, and kill it if it does not."""
        self._answers.close()
        try:
            self._requests.close()
            self._guarded.process.wait(_PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        self._guarded.end()
        self._log.close()


def _sample(prompt: str, made: Sequence[Any]) -> Sample:
    text, tokens, stopped = made
    return Sample(prompt, str(text), tuple(tokens), bool(stopped))


def serve(model: str, length: int) -> None:
    """Answer requests on standard input until it is closed: the worker's own side."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM prints to standard output, in C++ too
    vllm = importlib.import_module("vllm")
    engine = vllm.LLM(model=model, max_model_len=length)
    for line in sys.stdin:
        request = json.loads(line)
        settings = [
            vllm.SamplingParams(temperature=request["temperature"], max_tokens=request["max_tokens"], seed=seed)
            for seed in request["seeds"]
        ]
        prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
        made = [result.outputs[0] for result in engine.generate(prompts, settings, use_tqdm=False)]
        answer = [(output.text, list(output.token_ids), output.finish_reason == "stop") for output in made]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
