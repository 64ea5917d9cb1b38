import shutil

import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate import Options
from rlmerge.evaluate.exact import Item
from rlmerge.evaluate.landscape.scorers import TinyScorer
from rlmerge.evaluate.landscape.survey import ALPHAS, BETAS, read_landscape, survey_landscape
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge.evaluate.subjects import open_subjects
from rlmerge.progress import Quiet
from support.checkpoints import EXAMPLES

MODELS = EXAMPLES
ITEMS = (Item("rev", "_______Rbie=", ("eib",)), Item("cnt", "____Cabca,a=", ("2",)))


@pytest.fixture
def subjects():
    return open_subjects(MODELS / "base", [MODELS / "rl-rev", MODELS / "rl-cnt"], [MODELS / "sft-matched-rev"])


def test_the_landscape_looks_at_each_expert_on_its_own_tasks(subjects):
    found = survey_landscape(subjects, ITEMS, {"rev": ("rl-rev",), "cnt": ("rl-cnt",)}, Options(), Quiet())
    assert [(p.task, p.center, p.direction) for p in found.pictures] == [
        ("rev", "rl-rev", "rl-cnt"),
        ("cnt", "rl-cnt", "rl-rev"),
    ]
    # At the origin a picture shows the expert itself.
    score, loss = TinyScorer.of(MODELS / "base", ITEMS)(read_weights(MODELS / "rl-rev"))["rev"]
    row, column = ALPHAS.index(0.0), BETAS.index(0.0)
    picture = found.pictures[0]
    assert (picture.score[row][column], picture.loss[row][column]) == pytest.approx((score, loss), rel=1e-4)
    assert {(b.a, b.b, b.task) for b in found.barriers} == {
        ("rl-rev", "rl-cnt", "rev"),
        ("rl-rev", "rl-cnt", "cnt"),
    }
    assert {s.model for s in found.sharpness} == {subject.name for subject in subjects}


def test_experts_without_a_task_are_looked_at_on_all(subjects):
    found = survey_landscape(subjects, ITEMS, {}, Options(), Quiet())
    assert [(p.task, p.center) for p in found.pictures] == [
        *(("rev", "rl-rev"), ("cnt", "rl-rev"), ("rev", "rl-cnt"), ("cnt", "rl-cnt")),
    ]


def test_items_are_the_first_of_each_task(subjects):
    items = read_landscape(MODELS / "data" / "dev.jsonl", subjects, 2)
    assert [item.task for item in items] == [task for task in dict.fromkeys(i.task for i in items) for _ in range(2)]
    assert len(items) == 10


def test_a_landscape_needs_two_experts_and_items(subjects, tmp_path):
    with pytest.raises(RequestError, match="at least 2 experts, not 1"):
        read_landscape(MODELS / "data" / "dev.jsonl", subjects[:2], None)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RequestError, match="holds no items"):
        read_landscape(tmp_path / "empty.jsonl", subjects, None)


def test_other_models_are_scored_by_transformers(tmp_path, monkeypatch):
    for name in ("base", "a", "b"):
        shutil.copytree(MODELS / "base", tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(config.read_text().replace('"llama"', '"mistral"'))
    used = []

    class Causal:
        def __init__(self, model, items, **options):
            used.append((model.name, len(items), options))

        def __call__(self, weights):
            return {"rev": (0.5, 0.7), "cnt": (0.5, 0.7)}

    monkeypatch.setattr("rlmerge.evaluate.landscape.survey.CausalScorer", Causal)
    subjects = open_subjects(tmp_path / "base", [tmp_path / "a", tmp_path / "b"], [])
    survey_landscape(subjects, ITEMS, {}, Options(device="cpu"), Quiet())
    assert used == [("base", 2, {"device": "cpu", "chat": False})]
