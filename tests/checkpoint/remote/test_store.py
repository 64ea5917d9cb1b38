import pytest

from rlmerge.checkpoint.remote import store
from rlmerge.checkpoint.remote.store import Transient, retried
from rlmerge.errors import CheckpointError


@pytest.fixture
def slept(monkeypatch):
    delays = []
    monkeypatch.setattr(store, "FIRST_DELAY", 0.25)
    monkeypatch.setattr(store, "LONGEST_DELAY", 15.0)
    monkeypatch.setattr(store.time, "sleep", delays.append)
    return delays


def failing(count, error):
    left = [count]

    def action():
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "answer"

    return action


def test_a_failure_that_passes_is_tried_again_with_growing_delays(slept):
    assert retried(failing(7, Transient("503")), "s3://b/x") == "answer"
    nominal = [0.25, 0.5, 1, 2, 4, 8, 15]
    assert len(slept) == 7 and all(n / 2 <= delay <= n for delay, n in zip(slept, nominal, strict=True))


def test_a_failure_that_does_not_pass_is_an_error_that_keeps_a_runs_work(slept):
    with pytest.raises(CheckpointError, match=r"8 requests failed, the last with: 503 at https://h/x\n") as error:
        retried(failing(8, Transient("503 at https://u:secret@h/x?sig=secret")), "s3://b/x")
    assert error.value.where == "s3://b/x" and isinstance(error.value.__cause__, OSError)


def test_other_errors_are_final(slept):
    with pytest.raises(KeyError):
        retried(failing(1, KeyError("no")), "s3://b/x")
    assert slept == []
