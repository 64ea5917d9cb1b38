"""Merges taken apart, against the same exchange made by hand, and held tasks and students of a whole study."""

import numpy as np
import pytest

from rlmerge.evaluate.exact import read_items, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import TinyLlama, load
from rlmerge_lab.study import StudyBudget, run_study
from rlmerge_lab.study.ablation import OUTSIDE, is_ablated, layer_numbers
from rlmerge_lab.study.candidates import candidates
from rlmerge_lab.study.family import Family
from support.laboratory import BASE, CHECKPOINTS, ExampleLab, experts

TASKS, HELD = ("rev", "cnt"), ("shift",)
BUDGET = StudyBudget(
    methods=("tsv", "ties"),
    main_arms=("rl",),
    pair_arms=(),
    trials=2,
    dev_items=4,
    test_items=6,
    sweep=(0.5,),
    calibration=0,
    landscape_seeds=0,
    health_seeds=0,
    ablation_layers=2,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    lab = ExampleLab(tmp_path_factory.mktemp("lab"), tasks=TASKS, arms=("rl",), held=HELD, students=("distil",))
    return run_study(lab, BUDGET, workers=1)


@pytest.fixture(scope="module")
def family():
    return Family.read(BASE, experts(tasks=TASKS))


def exact(weights, family, tasks):
    items = [item for item in read_items(CHECKPOINTS / "data" / "test.jsonl") if item.task in tasks]
    chosen = [item for task in tasks for item in [one for one in items if one.task == task][:6]]
    found = score(TinyLlama(family.config, family.state(weights)), chosen, read_vocabulary(BASE))
    return {task: float(found.on(task).probability.mean()) for task in tasks}


def tuned(study, method):
    (row,) = [row for row in study["merges"] if row["method"] == method and row["rule"] == "tuned"]
    return row


def merged(study, family, method):
    parameters = dict(tuned(study, method)["parameters"])
    factor = parameters.pop("lambda", 1.0)
    return family.merge(method, parameters, 0).scaled(factor)


def test_every_part_of_methods_that_look_at_more_than_a_weight(study):
    found = [(row["method"], row["part"], row["layer"]) for row in study["ablation"]]
    assert found == [("tsv", "layer", 0), ("tsv", "layer", 1), ("tsv", "outside", None), ("tsv", "rest", 0)]
    ready = {one.label: one for one in candidates(["tsv", "covariance", "ties", "ram"], 2, False)[0]}
    assert {label for label, one in ready.items() if is_ablated(one)} == {"tsv", "covariance"}


def test_layers_of_weights(family):
    at, shapes = layer_numbers(family), family.config.shapes()
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    assert len(at) == sum(sizes.values())
    assert (at == 1).sum() == sum(size for name, size in sizes.items() if ".layers.1." in name)
    assert (at == OUTSIDE).sum() == sum(size for name, size in sizes.items() if ".layers." not in name) > 0


@pytest.mark.parametrize(
    ("part", "layer", "takes"),
    [
        ("layer", 0, lambda name: ".layers.0." in name),
        ("layer", 1, lambda name: ".layers.1." in name),
        ("outside", None, lambda name: ".layers." not in name),
        ("rest", 0, lambda name: ".layers.0." not in name),
    ],
)
def test_a_part_scores_what_the_exchange_of_tensors_scores(study, family, part, layer, takes):
    own, plain = (family.state(family.stored(merged(study, family, name))) for name in ("tsv", "task_arithmetic"))
    mixed = np.concatenate([(own if takes(name) else plain)[name].reshape(-1) for name in family.config.shapes()])
    (row,) = [row for row in study["ablation"] if (row["part"], row["layer"]) == (part, layer)]
    expected = exact(mixed, family, (*TASKS, *HELD))
    # Batches of other sizes round differently in float32.
    assert row["test"] == pytest.approx({task: expected[task] for task in TASKS}, rel=1e-4)
    assert row["off"] == pytest.approx({"shift": expected["shift"]}, rel=1e-4)


def test_held_tasks_are_scored_everywhere_and_tuned_on_nowhere(study, family):
    assert study["held"] == ["shift"] and study["vocabulary"] == 32
    (base,) = study["bases"]
    before = exact(family.base, family, HELD)["shift"]
    assert base["held"] == pytest.approx({"shift": before}, rel=1e-4)
    assert set(base["test"]) == set(base["dev"]) == set(TASKS)
    for row in study["merges"]:
        assert set(row["test"]) == set(row["kept"]) == set(TASKS) and set(row["off"]) == {"shift"}
        assert row["off_task"] == pytest.approx(row["off"]["shift"] - before, abs=1e-6)
        assert row["off_retention"] == pytest.approx(row["off"]["shift"] / before, rel=1e-4)
    own = exact(load_flat(family, 0), family, HELD)["shift"]
    expert = next(row for row in study["experts"] if row["task"] == "rev")
    assert expert["off_task"] == pytest.approx(own - before, abs=1e-6)
    assert all("off_task" in row for row in study["sweep"])


def load_flat(family, place):
    state = load(experts(tasks=TASKS)[place]).weights
    return np.concatenate([np.asarray(state[name], np.float32).reshape(-1) for name in family.config.shapes()])


def test_students_come_with_their_curve(study):
    (row,) = study["students"]
    assert (row["seed"], row["arm"]) == (0, "distil")
    assert row["curve"] == [[0, {"rev": 0.5, "cnt": 0.5}], [1000, {"rev": 0.6, "cnt": 0.6}]]
    # The example's student is the expert of its first task.
    assert row["test"] == next(one for one in study["experts"] if one["task"] == "rev")["test"]
