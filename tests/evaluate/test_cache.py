import json
import os
import threading

import pytest

from rlmerge.evaluate.cache import Store, default_store
from rlmerge.evaluate.scores import Score

SCORES = (Score.of_items("math", "acc", [1.0, 0.0, 1 / 3]), Score("math", "loss", 2.5, higher_is_better=False))


class Judge:
    name = "judge"

    def __init__(self, **identity):
        self._identity = identity

    def identity(self):
        return self._identity

    def score(self, model, tasks):
        raise AssertionError("not asked")


def entry(tmp_path, model="digest", task="math", **identity):
    return Store(tmp_path).entry(Judge(**{"data": 1, **identity}), model, task)


def test_scores_come_back_equal(tmp_path):
    entry(tmp_path).save(SCORES)
    assert entry(tmp_path).load() == SCORES
    assert [file.suffix for file in (tmp_path / "scores").iterdir()] == [".json"]


def test_another_model_task_data_or_evaluator_is_another_entry(tmp_path):
    entry(tmp_path).save(SCORES)
    for other in ({"model": "other"}, {"task": "code"}, {"data": 2}):
        assert entry(tmp_path, **other).load() is None


def damages():
    content = json.dumps({"about": {}, "digest": "", "scores": []})
    yield "truncated", lambda file: file.write_text(file.read_text()[:-20])
    yield "empty", lambda file: file.write_text("")
    yield "binary", lambda file: file.write_bytes(os.urandom(300))
    yield "another value", lambda file: file.write_text(file.read_text().replace("2.5", "2.6"))
    yield "not an object", lambda file: file.write_text("[1, 2]")
    yield "no scores", lambda file: file.write_text(content)
    yield "deep", lambda file: file.write_text("[" * 100_000)


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damages()])
def test_a_damaged_entry_is_scored_again(tmp_path, damage):
    entry(tmp_path).save(SCORES)
    damage(entry(tmp_path).file)
    assert entry(tmp_path).load() is None
    entry(tmp_path).save(SCORES)
    assert entry(tmp_path).load() == SCORES


def test_an_entry_under_another_entrys_name_is_not_believed(tmp_path):
    entry(tmp_path).save(SCORES)
    entry(tmp_path).file.rename(entry(tmp_path, task="code").file)
    assert entry(tmp_path, task="code").load() is None


def test_a_failed_write_leaves_the_old_entry_and_nothing_else(tmp_path, monkeypatch):
    entry(tmp_path).save(SCORES)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        entry(tmp_path).save((Score("math", "acc", 0.0),))
    assert entry(tmp_path).load() == SCORES
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_writers_at_once_leave_a_whole_entry(tmp_path):
    threads = [threading.Thread(target=entry(tmp_path).save, args=[SCORES]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entry(tmp_path).load() == SCORES
    assert len(list((tmp_path / "scores").iterdir())) == 1


def test_the_users_cache_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "rlmerge" / "eval"
