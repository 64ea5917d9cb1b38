"""Stands for lm_eval 0.4.13: the same options, files and JSON, with made-up scores. Run as a program.

Tasks: ``tiny`` (exact_match by two filters), ``loss`` (perplexity, which is no mean of its items), ``group`` (an
aggregate without items), ``nan``, ``bare`` (no metric), ``crash``, ``offline``, ``silent`` (no files). The score of an
item follows from the model's path, and each call is noted in the file that FAKE_LM_EVAL_LOG names.
"""

import argparse
import json
import os
import sys
import zlib
from pathlib import Path

TIME = "2026-01-02T03-04-05.678901"
KNOWN = ("tiny", "loss", "group", "nan", "bare", "crash", "offline", "silent", "minerva_math500", "humaneval_instruct")


def main():
    parser = argparse.ArgumentParser()
    for option in ("model", "model_args", "tasks", "output_path", "batch_size", "include_path", "device", "limit"):
        parser.add_argument(f"--{option}")
    for option in ("log_samples", "apply_chat_template", "confirm_run_unsafe_code"):
        parser.add_argument(f"--{option}", action="store_true")
    arguments, rest = parser.parse_known_args()
    if log := os.environ.get("FAKE_LM_EVAL_LOG"):
        with Path(log).open("a") as file:
            said = {"arguments": vars(arguments), "rest": rest, "code": os.environ.get("HF_ALLOW_CODE_EVAL")}
            file.write(json.dumps(said) + "\n")
    tasks = arguments.tasks.split(",")
    missing = [task for task in tasks if task not in KNOWN]
    if missing:
        raise ValueError(f"Tasks not found: {', '.join(missing)}")
    if "crash" in tasks:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if "offline" in tasks:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (OfflineModeIsEnabled)")
    if "silent" in tasks:
        return
    model = arguments.model_args.split(",")[0].partition("=")[2]
    folder = Path(arguments.output_path) / model.replace("/", "__")
    folder.mkdir(parents=True)
    write(folder, tasks, int(arguments.limit or 40), model)


def write(folder, tasks, count, model):
    items = [float(zlib.crc32(f"{model} {index}".encode()) % 3 > 0) for index in range(count)]
    mean = sum(items) / count
    metrics = {
        "tiny": {
            "exact_match,strict-match": mean,
            "exact_match_stderr,strict-match": 0.07,
            "exact_match,flexible-extract": 1.0,
            "exact_match_stderr,flexible-extract": 0.0,
        },
        "loss": {"perplexity,none": 3.5, "perplexity_stderr,none": "N/A", "acc,none": mean, "acc_stderr,none": 0.07},
        "group": {"exact_match,none": 0.75, "exact_match_stderr,none": 0.05, "sample_count": {"exact_match,none": 80}},
        "nan": {"exact_match,none": float("nan"), "exact_match_stderr,none": "N/A"},
        "bare": {},
        "minerva_math500": {"exact_match,none": mean, "math_verify,none": mean},
        "humaneval_instruct": {"pass@1,create_test": mean, "pass@1_stderr,create_test": 0.07},
    }
    results = {task: {"name": task, "alias": task, "sample_len": count, **metrics[task]} for task in tasks}
    found = {
        "results": results,
        "group_subtasks": {},
        "configs": {task: {"task": task, "dataset_path": "json", "repeats": 1} for task in tasks},
        "higher_is_better": {task: {"exact_match": True, "perplexity": False} for task in tasks},
        "n-samples": {task: {"original": 500, "effective": count} for task in tasks if task != "group"},
        "lm_eval_version": "0.4.13",
    }
    (folder / f"results_{TIME}.json").write_text(json.dumps(found, indent=2))
    for task in tasks:
        if task != "group":
            kinds = sorted({key.split(",")[1] for key in results[task] if "," in key})
            with (folder / f"samples_{task}_{TIME}.jsonl").open("w") as file:
                for kind in kinds:
                    # lm-eval does not promise the order of its documents.
                    for index in reversed(range(count)):
                        score = 1.0 if kind == "flexible-extract" else items[index]
                        row = {"doc_id": index, "filter": kind, "exact_match": score, "math_verify": score}
                        file.write(json.dumps({**row, "acc": score, "perplexity": -score, "pass@1": score}) + "\n")


if __name__ == "__main__":
    print("loading", file=sys.stderr)
    main()
