import pytest

from rlmerge_lab.study.off_task import off_task


def test_change_and_retention_by_hand():
    found = off_task({"a": 0.5, "b": 0.25}, {"a": 0.4, "b": 0.3, "own": 0.9})
    assert found["off"] == {"a": 0.4, "b": 0.3}
    # −0.1 and +0.05; 0.8 and 1.2.
    assert found["off_task"] == pytest.approx(-0.025) and found["off_retention"] == pytest.approx(1.0)


def test_nothing_is_retained_of_nothing():
    assert off_task({"a": 0.0}, {"a": 0.1}) == {"off": {"a": 0.1}, "off_task": 0.1, "off_retention": None}
    assert off_task({"a": 0.0, "b": 0.5}, {"a": 0.1, "b": 0.25})["off_retention"] == 0.5


def test_without_such_tasks_nothing_is_said():
    assert off_task({}, {"own": 0.9}) == {}
