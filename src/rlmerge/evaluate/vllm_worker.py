"""The process in which vLLM runs: ``python -m rlmerge.evaluate.vllm_worker MODEL LENGTH``, JSON lines in and out."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main(model: str, length: int) -> None:
    """Answer requests on standard input until it is closed."""
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
    main(sys.argv[1], int(sys.argv[2]))
