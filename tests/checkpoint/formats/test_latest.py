"""Results made once for many threads, and forgotten in the order of their last use."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlmerge.checkpoint.formats.latest import Latest


def test_a_result_is_made_once_for_all_who_wait():
    latest, made, gate = Latest(2), [], threading.Barrier(8)

    def ask(_):
        gate.wait()
        return latest.get("key", lambda: made.append(1) or "result")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"result"}
    assert made == [1]


def test_the_one_used_longest_ago_is_forgotten():
    latest, made = Latest(2), []
    for key in "abacb":
        latest.get(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b", "c", "b"], "b was forgotten for c, as a had been asked for again"


def test_what_fails_is_made_again_by_the_next():
    latest = Latest(2)
    with pytest.raises(ZeroDivisionError):
        latest.get("key", lambda: 1 / 0)
    assert latest.get("key", lambda: 5) == 5
