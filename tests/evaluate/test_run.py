import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlmerge.errors import CheckpointError, RequestError, RunError
from rlmerge.evaluate import Job, Options, Score, evaluate
from rlmerge.evaluate.run import survey_health
from rlmerge.evaluate.subjects import open_subjects
from rlmerge.progress import Quiet
from support.command_line import is_running, start, wait_until

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"
BASE, EXPERT, OTHER, MERGE = (MODELS / name for name in ("base", "rl-rev", "rl-cnt", "sft-matched-rev"))


class Judge:
    """Scores by table, and remembers what it was asked."""

    name = "judge"

    def __init__(self, table=None, fail=(), metric="acc"):
        self.table, self.fail, self.metric = table or {}, set(fail), metric
        self.calls = []

    def identity(self):
        return {"version": 1}

    def score(self, model, tasks):
        self.calls += [(model.name, task) for task in tasks]
        broken = [task for task in tasks if (model.name, task) in self.fail]
        if broken:
            raise RunError("ran out of memory", where=f"{broken[0]} on {model.name}", hint="Use a smaller batch.")
        return [self._one(model.name, task) for task in tasks]

    def _one(self, name, task):
        mean = self.table.get((name, task), {"base": 0.2, "rl-rev": 0.6}.get(name, 0.4))
        return Score.of_items(task, self.metric, [mean - 0.1, mean + 0.1] * 20, details={"from": name})


class Told:
    def __init__(self):
        self.lines, self.done_ = [], 0

    def start(self, phase, total, unit=""):
        self.lines.append(phase)
        self.total, self.unit = total, unit

    def advance(self, amount):
        self.done_ += amount

    def done(self):
        pass

    def message(self, text):
        self.lines.append(text)


def run(judge, store, *, tasks=("math", "code"), models=(MERGE,), experts=(EXPERT,), **rest):
    jobs = [Job(judge, task, task) for task in tasks]
    return evaluate(models, base=BASE, experts=experts, tasks=jobs, options=Options(store=store), **rest)


def test_base_and_every_expert_are_scored_and_compared(tmp_path):
    judge, told = Judge(), Told()
    found = run(judge, tmp_path, experts=(EXPERT, OTHER), progress=told)
    assert judge.calls == [
        (name, task) for name in ("base", "rl-rev", "rl-cnt", "sft-matched-rev") for task in ("math", "code")
    ]
    assert [(model.name, model.role, model.scored) for model in found.models] == [
        ("base", "base", "now"),
        ("rl-rev", "expert", "now"),
        ("rl-cnt", "expert", "now"),
        ("sft-matched-rev", "merge", "now"),
    ]
    (merge,) = found.merges
    # (0.4 − 0.2) / (0.6 − 0.2) on both tasks, which are rl-rev's
    assert merge.gain_kept.value == pytest.approx(0.5)
    assert found.warnings == ("no task was found to be the own one of rl-cnt; name them with --own",)
    assert "sft-matched-rev on code: acc 0.400 (0 s)" in told.lines
    assert (told.done_, told.unit) == (8, "tasks")


def test_the_plain_form_is_json_under_its_schema(tmp_path):
    found = run(Judge(), tmp_path)
    plain = json.loads(found.to_json())
    assert plain == found.to_dict()
    assert plain["schema"] == "rlmerge.eval/1"
    assert plain["tasks"][0] == {
        "task": "math",
        "metric": "acc",
        "higher_is_better": True,
        "n": 40,
        "k": None,
        "experts": ["rl-rev"],
    }
    assert {(score["model"], score["task"]): score["value"] for score in plain["scores"]}["base", "code"] == (
        pytest.approx(0.2)
    )
    assert plain["merges"][0]["worst"] == {
        "task": "math",
        "expert": "rl-rev",
        "retention": pytest.approx(2 / 3),
    }
    assert plain["health"] is None and plain["landscape"] is None


def test_a_second_run_scores_only_what_is_new(tmp_path):
    first = run(Judge(), tmp_path)
    again = Judge()
    second = run(again, tmp_path)
    assert again.calls == []
    assert {model.scored for model in second.models} == {"cached"}
    assert second.scores == first.scores and second.merges == first.merges
    more = Judge()
    run(more, tmp_path, tasks=("math", "code", "chat"), models=(MERGE, OTHER))
    assert more.calls == [
        *(("base", "chat"), ("rl-rev", "chat"), ("sft-matched-rev", "chat")),
        *(("rl-cnt", "math"), ("rl-cnt", "code"), ("rl-cnt", "chat")),
    ]
    anew = Judge()
    run(anew, tmp_path, rescore=True)
    assert len(anew.calls) == 6


def test_a_changed_model_is_scored_again(tmp_path):
    shutil.copytree(MERGE, tmp_path / "merged")
    run(Judge(), tmp_path / "store", models=(tmp_path / "merged",))
    shutil.copy(OTHER / "model.safetensors", tmp_path / "merged" / "model.safetensors")
    judge = Judge()
    run(judge, tmp_path / "store", models=(tmp_path / "merged",))
    assert judge.calls == [("merged", "math"), ("merged", "code")]


def test_a_copy_of_a_model_is_scored_once_and_told(tmp_path):
    shutil.copytree(EXPERT, tmp_path / "copy")
    judge = Judge()
    found = run(judge, tmp_path / "store", models=(tmp_path / "copy",))
    assert ("copy", "math") not in judge.calls
    assert "copy holds exactly what rl-rev holds; both have the same scores" in found.warnings
    assert found.merges[0].per_task[0].verdict_to_expert == "undecided"


def test_a_damaged_entry_is_scored_again(tmp_path):
    run(Judge(), tmp_path)
    victim = sorted((tmp_path / "scores").iterdir())[0]
    victim.write_text(victim.read_text().replace("0.", "9.", 1))
    judge = Judge()
    run(judge, tmp_path)
    assert len(judge.calls) == 1


def test_one_call_for_all_tasks(tmp_path):
    judge = Judge()
    asked = []
    judge.score = lambda model, tasks, score=judge.score: asked.append(tuple(tasks)) or score(model, tasks)
    run(judge, tmp_path, together=True)
    assert asked == [("math", "code")] * 3


def test_a_failure_lets_the_others_finish_and_is_told_at_the_end(tmp_path):
    judge = Judge(fail=[("rl-rev", "math")])
    with pytest.raises(RunError) as caught:
        run(judge, tmp_path)
    text = str(caught.value)
    assert "rl-rev on math: math on rl-rev: ran out of memory" in text and "Use a smaller batch." in text
    assert ("sft-matched-rev", "math") in judge.calls and ("sft-matched-rev", "code") in judge.calls
    judge = Judge()
    run(judge, tmp_path)
    assert judge.calls == [("rl-rev", "math")]


def test_what_fails_on_the_base_is_not_tried_on_the_others(tmp_path):
    judge = Judge(fail=[("base", "math")])
    with pytest.raises(RunError, match="base on math"):
        run(judge, tmp_path)
    assert [task for _, task in judge.calls] == ["math", "code", "code", "code"]


def test_a_model_in_memory_is_given_back_before_another_evaluators_turn(tmp_path):
    log = []

    class Heavy(Judge):
        def score(self, model, tasks):
            log.append(f"{self.name} {model.name} {tasks[0]}")
            return super().score(model, tasks)

    class Holding(Heavy):
        def close(self):
            log.append(f"{self.name} closed")

    heavy, light = Holding(), Heavy()
    heavy.name, light.name = "heavy", "light"
    jobs = [Job(heavy, "a", "a"), Job(heavy, "b", "b"), Job(light, "c", "c")]
    evaluate([MERGE], base=BASE, experts=[EXPERT], tasks=jobs, options=Options(store=tmp_path))
    assert log[:5] == ["heavy base a", "heavy base b", "heavy closed", "light base c", "heavy rl-rev a"]
    assert log.count("heavy closed") == 3
    log.clear()
    heavy.fail = {("base", "d")}
    with pytest.raises(RunError):
        evaluate([], base=BASE, experts=[EXPERT], tasks=[Job(heavy, "d", "d")], options=Options(store=tmp_path))
    assert log == ["heavy base d", "heavy closed"]


def test_an_evaluator_that_forgets_a_task(tmp_path):
    judge = Judge()
    judge.score = lambda model, tasks: [Score("other", "acc", 0.5)]
    with pytest.raises(RunError, match="'judge' gave no score for this task"):
        run(judge, tmp_path)


def test_another_metric_for_another_model_is_refused(tmp_path):
    judge = Judge()
    score = judge.score
    judge.score = lambda model, tasks: [
        Score(s.task, "f1" if model == MERGE else "acc", s.value) for s in score(model, tasks)
    ]
    with pytest.raises(RunError, match="sft-matched-rev was scored by 'f1' and its base by 'acc'"):
        run(judge, tmp_path)


def test_a_full_disk_costs_the_cache_and_not_the_scores(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = run(Judge(), tmp_path)
    assert found.merges[0].gain_kept.value == pytest.approx(0.5)
    (warning,) = [warning for warning in found.warnings if "could not be kept" in warning]
    assert "No space left on device" in warning


def test_scores_of_a_harness_that_was_changed_meanwhile_are_not_kept(tmp_path):
    judge = Judge()
    judge.identity = lambda: {"calls": len(judge.calls)}
    found = run(judge, tmp_path, tasks=("math",))
    assert "data or programs of 'judge' changed while it ran; its scores are not kept" in found.warnings
    assert not (tmp_path / "scores").exists()


def test_bad_requests_score_nothing(tmp_path):
    judge = Judge()
    shutil.copytree(MERGE, tmp_path / "merged")
    (tmp_path / "merged" / "tokenizer.json").unlink()
    for changes, kind, words in (
        ({"models": (tmp_path / "absent",)}, CheckpointError, "no such directory"),
        ({"models": (tmp_path / "merged",)}, RequestError, "merged/tokenizer.json: is missing"),
        ({"own": {"rl-rv": ["math"]}}, RequestError, "Did you mean 'rl-rev'"),
        ({"health": tmp_path / "absent.txt"}, RequestError, "absent.txt"),
        ({"landscape": MODELS / "data" / "dev.jsonl"}, RequestError, "at least 2 experts, not 1"),
    ):
        with pytest.raises(kind, match=words):
            run(judge, tmp_path / "store", **changes)
    assert judge.calls == [] and not (tmp_path / "store").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    """A real run in a process group of its own, killed while its harness works on the second model."""
    log, script = tmp_path / "log", tmp_path / "slow.py"
    script.write_text(
        "import json, os, pathlib, sys, time\n"
        "model, task = sys.argv[1:]\n"
        "log = os.environ['LOG']\n"
        "with open(log, 'a') as file:\n"
        "    file.write(f'{pathlib.Path(model).name} {task}\\n')\n"
        "if not pathlib.Path(log + '.go').exists() and 'rl-rev' in model and task == 'code':\n"
        "    pathlib.Path(log + '.pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "print(json.dumps({task: {'items': [0, 1] * 10}}))\n"
    )
    monkeypatch.setenv("LOG", str(log))
    words = " ".join(shlex.quote(str(word)) for word in (sys.executable, script, "{model}", "{tasks}"))
    arguments = [str(MERGE), "--base", str(BASE), "--experts", str(EXPERT), "--tasks", "command:math", "command:code"]
    command = ["eval", *arguments, "--command", words, "--store", str(tmp_path / "store")]
    command += ["--format", "json", "--quiet"]
    process = start(*command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until((tmp_path / "log.pid").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not is_running((tmp_path / "log.pid").read_text()))
    assert log.read_text().split("\n")[:-1] == ["base math", "base code", "rl-rev math", "rl-rev code"]
    (tmp_path / "log.go").touch()
    log.unlink()
    again = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stderr
    assert log.read_text().split("\n")[:-1] == ["rl-rev code", "sft-matched-rev math", "sft-matched-rev code"]
    assert {model["scored"] for model in json.loads(stdout)["models"]} == {"now", "cached"}


def test_health_is_measured_to_base_and_experts():
    subjects = open_subjects(BASE, [EXPERT, OTHER], [MERGE])
    options = Options(backend="tiny", max_new_tokens=8, temperature=0.0)
    found = survey_health(subjects, ["_______Rbie=", "____Cabca,a="], options, Quiet())
    assert (found.prompts, found.max_new_tokens) == (2, 8)
    assert [set(model.kl_to) - {model.name} for model in found.models][-1] == {"base", "rl-rev", "rl-cnt"}
    assert all(0 <= model.stop_rate <= 1 for model in found.models)


def test_a_text_where_a_list_belongs_is_refused(tmp_path):
    for name, arguments in (
        ("models", {"models": str(MERGE)}),
        ("experts", {"experts": EXPERT}),
    ):
        with pytest.raises(RequestError, match=f"{name} must be a list"):
            run(Judge(), tmp_path, **arguments)
    with pytest.raises(RequestError, match=r"tasks must be a list, not 'exact:x\.jsonl'"):
        evaluate([MERGE], base=BASE, experts=[EXPERT], tasks="exact:x.jsonl", options=Options(store=tmp_path))


def test_every_label_stands_for_one_job_and_there_is_one(tmp_path):
    jobs = [Job(Judge(), "math", "x"), Job(Judge(), "code", "x")]
    with pytest.raises(RequestError, match="x: the task is given twice"):
        evaluate([MERGE], base=BASE, experts=[EXPERT], tasks=jobs, options=Options(store=tmp_path))
    with pytest.raises(RequestError, match="nothing to score"):
        evaluate([MERGE], base=BASE, experts=[EXPERT], tasks=[], options=Options(store=tmp_path))
