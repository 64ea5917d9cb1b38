"""Whole searches: on the shipped examples, on toys by a proxy, killed, shared, and with all that goes wrong."""

import json

import pytest
import yaml

import rlmerge
from rlmerge.errors import RequestError, RunError
from rlmerge.search.baseline import peak
from rlmerge.search.candidates import Maker
from rlmerge.search.judging import Judge
from rlmerge.search.study import Study

TOY = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "e0", "parameters": {"weight": {"low": 0.0, "high": 1.0}}}, {"model": "e1"}],
    "tune": {"objective": "proxy:retention", "trials": 6, "round": 3},
}


def toy_with(**changes):
    return {**TOY, "tune": {**TOY["tune"], **changes}}


def test_a_search_ends_with_a_runnable_recipe_confirmed_on_test_items(examples):
    search = {
        "merge_method": {"choices": ["task_arithmetic", "ties"]},
        "base_model": "base",
        "models": [
            {"model": name, "parameters": {"weight": {"low": 0.3, "high": 1.5}}} for name in ("rl-rev", "rl-cnt")
        ],
        "parameters": {"density": {"low": 0.2, "high": 1.0}, "normalize": False},
        "tune": {
            "tasks": ["exact:data/dev.jsonl:rev", "exact:data/dev.jsonl:cnt"],
            "test": ["exact:data/test.jsonl:rev", "exact:data/test.jsonl:cnt"],
            "own": {"rl-rev": ["rev"], "rl-cnt": ["cnt"]},
            "trials": 8,
            "round": 4,
            "limit": 32,
            "test_limit": 32,
        },
    }
    found = rlmerge.tune(search, "found", merge=True)
    assert len(found.trials) == 8
    # Baseline, where each method begins, two rounds, and winner and baseline on test: each is one read of the models.
    assert found.reads == 6 - (found.best is None)
    assert {trial.state for trial in found.trials} == {"complete", "pruned"}
    for trial in found.trials:
        seen = len(trial.at_levels)
        assert seen == 3 if trial.state == "complete" else seen < 3
    best = max(t.values[0] for t in found.trials if t.state == "complete")
    winner = found.finalists[0]
    assert winner.role == "winner"
    assert winner.dev == pytest.approx(max(best, *(row["values"][0] for row in found.baseline)))
    assert {each.role for each in found.finalists} >= {"winner", "expert", "base"}
    assert [each.test.value for each in found.finalists if each.role == "base"] == [0.0]
    assert all(pair.verdict in ("better", "worse", "undecided") for pair in found.comparisons)
    assert rlmerge.verify("found/merged").ok
    recipe = yaml.safe_load((examples / "found" / "best.yaml").read_text())
    assert recipe == yaml.safe_load(found.recipe)
    assert rlmerge.plan("found/best.yaml").method.name == recipe["merge_method"]
    assert json.loads((examples / "found" / "tune.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert (examples / "found" / "report.html").read_text().startswith("<!doctype html>")

    import optuna

    study = optuna.load_study(study_name="rlmerge", storage="sqlite:///found/study.db")
    assert len(study.get_trials()) == 8

    again = rlmerge.tune(search, "found")
    assert again.trials == found.trials
    assert again.recipe == found.recipe


def test_a_search_by_a_proxy_needs_no_tasks_and_says_so(toy):
    found = rlmerge.tune(toy_with(), "found")
    assert [trial.state for trial in found.trials] == ["complete"] * 6
    assert found.reads == 2
    assert any("a proxy, which is no score" in warning for warning in found.warnings)
    assert "Why trials failed" not in (toy / "found" / "report.html").read_text()
    best = found.trials[found.best]
    assert best.values[0] == max(trial.values[0] for trial in found.trials)
    # e1 is added whole; what e0 keeps of its own changes is the weight itself.
    for trial in found.trials:
        weight = trial.parameters["weight of e0"]
        assert trial.values[0] == pytest.approx((weight + 1.0) / 2, abs=0.01)


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_values_that_were_tried_before_are_not_merged_again(toy, monkeypatch, sampler):
    """Eight trials of three recipes: each is merged once, and the others end as the first of them did."""
    made = []
    make = Maker._merge

    def counted(self, plans):
        made.extend(plans)
        return make(self, plans)

    monkeypatch.setattr(Maker, "_merge", counted)
    search = toy_with(trials=8, sampler=sampler)
    search["models"] = [{"model": "e0", "parameters": {"weight": {"choices": [0.25, 0.5, 1.0]}}}, {"model": "e1"}]
    found = rlmerge.tune(search, "found")
    assert len(found.trials) == 8
    assert {trial.state for trial in found.trials} == {"complete"}
    values = {}
    for trial in found.trials:
        values.setdefault(trial.parameters["weight of e0"], set()).add(trial.values)
    assert all(len(same) == 1 for same in values.values())
    assert len([name for name in made if name.startswith("trial-")]) == len(values) <= 3


def test_several_objectives_have_a_front(toy):
    found = rlmerge.tune(toy_with(objective=["proxy:retention", "proxy:survival"], trials=8, round=8), "found")
    assert found.best in found.front
    values = {trial.number: trial.values for trial in found.trials}
    for number in found.front:
        assert not any(
            other != values[number] and all(a >= b for a, b in zip(other, values[number], strict=True))
            for other in values.values()
        )


def test_more_trials_go_on_and_another_search_is_refused(toy):
    rlmerge.tune(toy_with(trials=2), "found")
    assert len(rlmerge.tune(toy_with(trials=5), "found").trials) == 5
    with pytest.raises(RequestError, match="holds a search with other objectives"):
        rlmerge.tune(toy_with(objective="proxy:survival"), "found")
    other = {**TOY, "models": [{"model": "e0", "parameters": {"weight": {"low": 0.0, "high": 2.0}}}, {"model": "e1"}]}
    with pytest.raises(RequestError, match="holds a search with other ranges"):
        rlmerge.tune(other, "found")
    warm = rlmerge.tune({**other, "tune": {**TOY["tune"], "trials": 3}}, "second", warm="found")
    assert [trial.origin for trial in warm.trials] == ["warm"] * 3


def test_what_a_kill_left_is_made_again(toy, monkeypatch):
    complete = Study.complete

    def killed(self, trial, values):
        if trial.number == 1:
            raise KeyboardInterrupt
        complete(self, trial, values)

    monkeypatch.setattr(Study, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        rlmerge.tune(toy_with(), "found")
    monkeypatch.setattr(Study, "complete", complete)
    found = rlmerge.tune(toy_with(), "found")
    assert len(found.trials) == 6
    assert all(trial.state == "complete" for trial in found.trials)
    import optuna

    study = optuna.load_study(study_name="rlmerge", storage="sqlite:///found/study.db")
    lost = [trial.params for trial in study.get_trials() if trial.user_attrs.get("killed")]
    assert len(lost) == 2
    assert all(values in [dict(trial.parameters) for trial in found.trials] for values in lost)


def test_a_candidate_that_fails_costs_itself_alone(toy, monkeypatch):
    values = Judge.values

    def sometimes(self, candidate, level):
        if candidate.name.endswith("1"):
            raise ValueError("the harness crashed")
        if candidate.name.endswith("2"):
            object.__setattr__(candidate, "proxies", {"proxy:retention": float("nan")})
        return values(self, candidate, level)

    monkeypatch.setattr(Judge, "values", sometimes)
    found = rlmerge.tune(toy_with(), "found")
    assert [trial.state for trial in found.trials] == ["complete", "fail", "fail", *["complete"] * 3]
    assert found.trials[1].error == "ValueError: the harness crashed"
    assert found.trials[2].error == "the objective proxy:retention is nan"
    assert any("2 of 6 trials failed" in warning for warning in found.warnings)
    page = (toy / "found" / "report.html").read_text()
    assert "Why trials failed" in page and page.count("the harness crashed") >= 1


def test_a_search_whose_every_candidate_fails_stops(toy, monkeypatch):
    def never(self, candidate, level):
        raise ValueError("no")

    monkeypatch.setattr(Judge, "values", never)
    with pytest.raises(RunError, match="all 3 candidates failed; the first: ValueError: no"):
        rlmerge.tune(toy_with(), "found")


def test_a_constant_objective_is_warned_of(toy, monkeypatch):
    monkeypatch.setattr(Judge, "values", lambda self, candidate, level: ([0.5], {}))
    found = rlmerge.tune(toy_with(), "found")
    assert "the objective is 0.5 for all 6 candidates: it tells nothing apart" in found.warnings


def test_a_full_disk_leaves_a_study_that_goes_on(toy, monkeypatch):
    import sqlalchemy

    report = Study.report

    def full(self, trial, level, value):
        if trial.number == 4:
            with self._kept():
                raise sqlalchemy.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))
        report(self, trial, level, value)

    monkeypatch.setattr(Study, "report", full)
    with pytest.raises(RunError, match="the study cannot be kept"):
        rlmerge.tune(toy_with(), "found")
    monkeypatch.setattr(Study, "report", report)
    assert len(rlmerge.tune(toy_with(), "found").trials) == 6


def test_two_processes_share_a_study(toy):
    from concurrent.futures import ThreadPoolExecutor

    from support.command_line import run_rlmerge

    (toy / "search.yaml").write_text(yaml.safe_dump(toy_with(trials=9, round=2)))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_rlmerge("tune", "search.yaml", "-o", "found", "--quiet", cwd=toy), range(2)))
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    found = rlmerge.tune(toy_with(trials=9, round=2), "found")
    assert sorted(trial.number for trial in found.trials) == list(range(9))


def test_requests_that_make_no_sense(toy):
    for search, more, message in (
        (None, {}, "a search needs a search file, or a base and its experts"),
        (toy_with(), {"base": "base"}, "a search file names base, experts and methods itself"),
        (toy_with(trials=0), {}, "trials must be a whole number of 1 or more"),
        (toy_with(sampler="cmaes", trials=0), {}, "trials must be"),
        ({**TOY, "models": [{"model": "e0"}, {"model": "e1"}]}, {}, "nothing is free"),
        (toy_with(tasks=["exact:none.jsonl"], objective="gain_kept"), {}, "none.jsonl"),
        (toy_with(), {"warm": "nowhere"}, "holds no study"),
    ):
        with pytest.raises(RequestError, match=message):
            rlmerge.tune(search, "found", **more)
    (toy / "full").mkdir()
    (toy / "full" / "thesis.tex").touch()
    with pytest.raises(RequestError, match="holds something else than a search"):
        rlmerge.tune(toy_with(), "full")
    assert not (toy / "found" / "best.yaml").exists()


def test_a_hook_is_told_of_every_candidate(toy):
    command = "sh -c 'test -f {model}/model.safetensors && echo {model} >> told'"
    found = rlmerge.tune(toy_with(trials=2, hook=command), "found")
    told = (toy / "told").read_text().split()
    assert [line.rpartition("/")[2] for line in told] == [f"trial-{trial.number:05}" for trial in found.trials]
    assert not any((toy / "found" / "candidates").iterdir())


def test_methods_begin_where_they_keep_as_much_of_the_experts(examples, monkeypatch):
    """A weighted mean of two experts keeps half of each where no entry is changed by both; TIES, which averages those
    that agree, keeps an entry in full where the other expert leaves it alone."""
    begun = []
    enqueue = Study.enqueue

    def noted(self, values, origin):
        begun.append((origin, dict(values)))
        enqueue(self, values, origin)

    monkeypatch.setattr(Study, "enqueue", noted)
    names = ("rl-rev", "rl-cnt")
    rlmerge.tune(
        {
            "merge_method": {"choices": ["task_arithmetic", "ties"]},
            "base_model": "base",
            "models": [{"model": name} for name in names],
            "parameters": {"lambda": {"low": 0.1, "high": 12.0, "log": True}, "normalize": True},
            "tune": {
                "tasks": [f"exact:data/dev.jsonl:{name[3:]}" for name in names],
                "own": {name: [name[3:]] for name in names},
                "trials": 4,
                "limit": 32,
            },
        },
        "found",
    )
    (_, arithmetic), (_, ties) = [each for each in begun if each[0] == "baseline"][:2]
    rows = json.loads((examples / "found" / "tune.json").read_text())["baseline"]
    # Weights of task arithmetic are normalised, too: lambda is twice the coefficient, but for what the output's type
    # rounds away.
    assert arithmetic["lambda"] == pytest.approx(2 * peak(rows), rel=0.02)
    assert peak(rows) < ties["lambda"] < arithmetic["lambda"]
