import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import rlmerge
from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import read_items, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import TinyLlama, load
from rlmerge_lab.study import StudyBudget, run_study
from support.laboratory import BASE, CHECKPOINTS, TASKS, ExampleLab, experts

SMALL = StudyBudget(
    methods=("linear", "task_arithmetic", "ties", "slerp"),
    other_methods=(),
    pair_methods=(),
    pair_arms=("rl",),
    trials=3,
    dev_items=4,
    test_items=6,
    sweep=(0.5, 1.0),
    calibration=0,
    landscape_seeds=1,
    landscape_items=6,
    alphas=(0.0, 1.0),
    betas=(0.0,),
    health_seeds=1,
    health_methods=("ties", "ram"),
    health_prompts=2,
    health_tokens=8,
)
TIMES = ("cpu_hours", "cpu_seconds")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return ExampleLab(tmp_path_factory.mktemp("lab"), arms=("rl", "rl-bf16"))


@pytest.fixture(scope="module")
def study(lab):
    return run_study(lab, SMALL, workers=2, command="rlmerge lab study DIR")


def numbers(study):
    """Everything but what it cost, as JSON has it."""
    return json.loads(json.dumps({key: value for key, value in study.items() if key not in TIMES}))


def rows(study, **where):
    return [row for row in study["merges"] if all(row[key] == value for key, value in where.items())]


def test_the_heading_says_what_was_run(study):
    assert study["schema"] == "rlmerge.lab.study/1"
    assert (study["seeds"], study["tasks"], study["arms"]) == ([0], list(TASKS), ["rl", "rl-bf16"])
    assert study["methods"] == ["task_arithmetic", "linear", "ties"]
    assert {"method": "slerp", "experts": 3, "reason": "takes at most 1 expert, not 3"} in study["skipped"]
    assert (study["trials"], study["command"], study["parameters"]) == (3, "rlmerge lab study DIR", 607104)
    # Six experts and a base of 36 seconds each by the clock, and what the study took.
    assert study["cpu_seconds"]["training"] == 7 * 36 and study["cpu_at_most"]
    assert study["cpu_hours"] == pytest.approx(sum(study["cpu_seconds"].values()) / 3600)
    assert study["versions"]["torch"] == "2.0"
    assert json.loads(json.dumps(study, allow_nan=False)) == json.loads(json.dumps(study))


def test_every_rule_of_every_method_is_there(study):
    found = [(row["arm"], row["set"], row["method"], row["rule"], row.get("of")) for row in study["merges"]]
    three = ("default", "tuned", "matched")
    full = [("rl", "all", method, rule, None) for method in ("task_arithmetic", "linear", "ties") for rule in three]
    full += [("rl", "all", "task_arithmetic", "float32", "tuned"), ("rl", "all", "linear", "float32", "default")]
    sets = [("rl-bf16", "all"), *(("rl", pair) for pair in ("rev+cnt", "rev+shift", "cnt+shift"))]
    reference = [(*cell, "task_arithmetic", rule, None) for cell in sets for rule in three]
    exact = [(*cell, "task_arithmetic", "float32", "tuned") for cell in sets]
    assert sorted(found, key=str) == sorted(full + reference + exact, key=str)


def first_items(split, task, count):
    return [item for item in read_items(CHECKPOINTS / "data" / f"{split}.jsonl") if item.task == task][:count]


def exact(model, split, task, count):
    return float(np.mean(score(model, first_items(split, task, count), read_vocabulary(BASE)).probability))


def test_a_default_merge_scores_what_the_same_merge_scores_elsewhere(study, tmp_path):
    """The rule "default" against a merge of files and the public scorer; batches round in float32, hence 1e-5."""
    rlmerge.merge(
        {"merge_method": "ties", "base_model": str(BASE), "models": [{"model": str(path)} for path in experts()]},
        tmp_path / "merged",
        seed=0,
    )
    merged = load(tmp_path / "merged")
    (row,) = rows(study, arm="rl", method="ties", rule="default")
    assert row["test"] == pytest.approx({task: exact(merged, "test", task, 6) for task in TASKS}, rel=1e-5)
    base = {task: exact(load(BASE), "test", task, 6) for task in TASKS}
    own = {task: exact(load(path), "test", task, 6) for task, path in zip(TASKS, experts(), strict=True)}
    kept = {task: (row["test"][task] - base[task]) / (own[task] - base[task]) for task in TASKS}
    assert row["kept"] == pytest.approx(kept, rel=1e-3)
    gains = {task: own[task] - base[task] for task in TASKS}
    shares = sum(kept[task] * gains[task] for task in TASKS)
    assert row["gain_kept"] == pytest.approx(shares / sum(gains.values()), rel=1e-3)
    assert row["retention"] == pytest.approx(np.mean([row["test"][task] / own[task] for task in TASKS]), rel=1e-4)
    assert row["degradation"] == pytest.approx(row["retention"] - 1)


def test_tuning_never_chooses_worse_than_the_default_on_dev(study):
    for row in rows(study, rule="tuned"):
        (default,) = rows(study, arm=row["arm"], set=row["set"], method=row["method"], rule="default")
        assert row["dev"] >= default["dev"]
        assert (row["trials"], default["trials"], default["parameters"]) == (3, 0, {})


def test_matched_merges_have_the_norm_of_tuned_task_arithmetic(study):
    for row in rows(study, rule="matched"):
        (reference,) = rows(study, arm=row["arm"], set=row["set"], method="task_arithmetic", rule="tuned")
        assert row["norm"] == pytest.approx(reference["norm"], rel=1e-9)


def test_rounding_is_all_that_float32_rows_lack(study):
    for row in rows(study, rule="float32"):
        (stored,) = rows(study, arm=row["arm"], set=row["set"], method=row["method"], rule=row["of"])
        assert (row["parameters"], row["norm"]) == (stored["parameters"], stored["norm"])
        assert row["erased"] == 0.0
        assert row["survival"] >= stored["survival"]
    (average,) = rows(study, arm="rl", method="linear", rule="default")
    assert average["erased"] > 0


def test_the_sweep_passes_through_the_default(study):
    (default,) = rows(study, arm="rl", set="all", method="task_arithmetic", rule="default")
    sweep = {row["lambda"]: row for row in study["sweep"] if row["arm"] == "rl"}
    assert sweep[1.0]["test"] == default["test"]
    assert sweep[0.5]["norm"] == pytest.approx(default["norm"] / 2)


def test_geometry_is_that_of_inspect(study):
    found = rlmerge.inspect(BASE, experts())
    names = {f"rl-{task}": task for task in TASKS}
    rows = {(row["a"], row["b"]): row for row in study["geometry"] if row["arm"] == "rl"}
    assert len(rows) == len(found.pairs) == 3
    for pair in found.pairs:
        row = rows[names[pair.a], names[pair.b]]
        for key in ("cosine", "jaccard", "sign_conflict", "conflict_norm", "conflict_share", "distance"):
            # Sums run over other blocks, in float64.
            assert row[key] == pytest.approx(pair.figures[key].value, rel=1e-6)
        assert row["cosine_null_sd"] == pytest.approx(pair.figures["cosine"].null_sd, rel=1e-6)
        assert row["jaccard_chance"] == pytest.approx(pair.figures["jaccard"].null, rel=1e-6)
    for expert in found.experts:
        (row,) = (r for r in study["experts"] if (r["arm"], r["task"]) == ("rl", names[expert.model.name]))
        assert row["norm"] == pytest.approx(expert.figures["relative_norm"].value, rel=1e-6)
        assert row["unchanged"] == expert.figures["unchanged_bits"].value
        assert (row["steps"], row["stopped"]) == (120, "steps")
        assert row["test"] == pytest.approx({t: exact(load(path_of(row)), "test", t, 6) for t in TASKS}, rel=1e-5)


def path_of(row):
    return CHECKPOINTS / f"{row['arm']}-{row['task']}"


def test_pictures_start_at_the_expert(study):
    assert {row["arm"] for row in study["landscape"]} == {"rl"}
    for row in study["landscape"]:
        expert = load(CHECKPOINTS / f"rl-{row['center']}")
        assert row["task"] == row["center"] != row["direction"]
        assert row["score"][0][0] == pytest.approx(exact(expert, "test", row["task"], 6), rel=1e-5)
        other = load(CHECKPOINTS / f"rl-{row['direction']}").weights
        base = load(BASE).weights
        moved = {name: value + other[name] - base[name] for name, value in expert.weights.items()}
        assert row["score"][1][0] == pytest.approx(
            exact(TinyLlama(expert.config, moved), "test", row["task"], 6), rel=1e-4
        )


def test_health_of_base_experts_and_the_merges_that_there_are(study):
    assert [row["model"] for row in study["health"]] == ["base", *(f"expert:{t}" for t in TASKS), "merge:ties"]
    for row in study["health"]:
        assert (row["arm"], row["prompts"], row["max_new_tokens"]) == ("rl", 6, 8)
        assert sum(row["histogram"]["counts"]) == 6
        assert set(row["kl_to"]) == {"base", *(f"expert:{t}" for t in TASKS)} - {row["model"]}


def test_the_same_numbers_come_from_disk_and_from_one_process(study, lab):
    """Half of the merges are made again, by one worker instead of two."""
    files = sorted((lab.root / "study").glob("merge.*"))
    for file in files[::2]:
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files[1::2]}
    again = run_study(lab, SMALL, workers=1, command=study["command"])
    assert numbers(again) == numbers(study)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_larger_budget_adds_what_is_new(study, lab):
    before = set((lab.root / "study").iterdir())
    found = run_study(lab, replace(SMALL, sweep=(0.5, 1.0, 2.0)), workers=1, command=study["command"])
    new = {path.name.split("-")[0] for path in set((lab.root / "study").iterdir()) - before}
    assert new == {"sweep.seed"}
    assert found["merges"] == study["merges"]
    assert [row["lambda"] for row in found["sweep"]] == [0.5, 1.0, 2.0] * 2


def test_a_study_that_is_killed_continues(study, tmp_path):
    script = tmp_path / "study.py"
    script.write_text(f"""
from pathlib import Path
from rlmerge_lab.study import run_study
from support.laboratory import ExampleLab
import test_run
if __name__ == "__main__":
    run_study(ExampleLab(Path({str(tmp_path)!r}), arms=("rl", "rl-bf16")), test_run.SMALL, workers=2)
""")
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": places})
    records = tmp_path / "study"
    deadline = time.monotonic() + 120
    while len(list(records.glob("*.json"))) < 10:
        assert process.poll() is None, "the study ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
    lab = ExampleLab(tmp_path, arms=("rl", "rl-bf16"))
    found = run_study(lab, SMALL, workers=2, command=study["command"])
    assert numbers(found) == numbers(study)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@dataclass(frozen=True)
class Unfinished(ExampleLab):
    def manifest(self, model):
        return None if model.name == "rl-cnt" else super().manifest(model)


def test_labs_that_cannot_be_studied(tmp_path):
    with pytest.raises(RequestError, match="absent or unfinished") as caught:
        run_study(Unfinished(tmp_path), SMALL)
    assert caught.value.where.endswith("rl-cnt")
    assert "rlmerge lab train" in caught.value.hint
    with pytest.raises(RequestError, match="at least two tasks"):
        run_study(ExampleLab(tmp_path, tasks=("rev",)), SMALL)
    with pytest.raises(RequestError, match="unknown method 'rma'"):
        run_study(ExampleLab(tmp_path), replace(SMALL, methods=("rma",)))
    assert not (tmp_path / "study").exists()
