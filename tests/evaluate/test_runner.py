import json
import os
import threading
from pathlib import Path

import pytest

from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.runner import load_scores, score_entry
from rlmerge.evaluate.task_specs import Job

SCORES = (Score.of_items("math", "acc", [1.0, 0.0, 1 / 3]), Score("math", "loss", 2.5, higher_is_better=False))


class Judge:
    name = "judge"

    def __init__(self, **identity):
        self._identity = identity

    def identity(self):
        return self._identity

    def score(self, model, tasks):
        raise AssertionError("not asked")


class Kept:
    """The place of one model's scores on one task."""

    def __init__(self, tmp_path, model="digest", task="math", **identity):
        self.entry = score_entry(tmp_path, Job(Judge(**{"data": 1, **identity}), task, "label"), model)
        self.file = self.entry.file

    def save(self, scores):
        self.entry.save([score.to_dict() for score in scores])

    def load(self):
        return load_scores(self.entry)


def test_scores_come_back_equal(tmp_path):
    Kept(tmp_path).save(SCORES)
    assert Kept(tmp_path).load() == SCORES
    assert [file.suffix for file in (tmp_path / "scores").iterdir()] == [".json"]


def test_another_model_task_data_or_evaluator_is_another_entry(tmp_path):
    Kept(tmp_path).save(SCORES)
    for other in ({"model": "other"}, {"task": "code"}, {"data": 2}):
        assert Kept(tmp_path, **other).load() is None


def damages():
    content = json.dumps({"about": {}, "digest": "", "value": []})
    yield "truncated", lambda file: file.write_text(file.read_text()[:-20])
    yield "empty", lambda file: file.write_text("")
    yield "binary", lambda file: file.write_bytes(os.urandom(300))
    yield "another value", lambda file: file.write_text(file.read_text().replace("2.5", "2.6"))
    yield "not an object", lambda file: file.write_text("[1, 2]")
    yield "no scores", lambda file: file.write_text(content)
    yield "deep", lambda file: file.write_text("[" * 100_000)


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damages()])
def test_a_damaged_entry_is_scored_again(tmp_path, damage):
    Kept(tmp_path).save(SCORES)
    damage(Kept(tmp_path).file)
    assert Kept(tmp_path).load() is None
    Kept(tmp_path).save(SCORES)
    assert Kept(tmp_path).load() == SCORES


def test_an_entry_under_another_entrys_name_is_not_believed(tmp_path):
    Kept(tmp_path).save(SCORES)
    Kept(tmp_path).file.rename(Kept(tmp_path, task="code").file)
    assert Kept(tmp_path, task="code").load() is None


def test_a_failed_write_leaves_the_old_entry_and_nothing_else(tmp_path, monkeypatch):
    Kept(tmp_path).save(SCORES)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Kept(tmp_path).save((Score("math", "acc", 0.0),))
    assert Kept(tmp_path).load() == SCORES
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_writers_at_once_leave_a_whole_entry(tmp_path):
    threads = [threading.Thread(target=Kept(tmp_path).save, args=[SCORES]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Kept(tmp_path).load() == SCORES
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_what_is_kept_but_holds_no_scores_is_scored_again(tmp_path):
    for value in ([], [{"task": "math"}], [3], "scores", [{**SCORES[0].to_dict(), "value": None}]):
        Kept(tmp_path).entry.save(value)
        assert Kept(tmp_path).load() is None


def test_an_identity_may_name_files(tmp_path):
    kept = Kept(tmp_path, script=Path("my_eval.py"))
    kept.save(SCORES)
    assert Kept(tmp_path, script=Path("my_eval.py")).load() == SCORES
