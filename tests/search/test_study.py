"""What a study hands out: what was asked for first, to one process at a time, within the budget of trials."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from rlmerge.search.request import read_search
from rlmerge.search.study import Study

SEARCH = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "e0", "parameters": {"weight": {"low": 0.0, "high": 1.0}}}, {"model": "e1"}],
    "tune": {"objective": "proxy:retention", "trials": 3},
}


@pytest.fixture
def studies(tmp_path):
    """The study of one search, opened twice: as by two processes."""
    space, settings = read_search(SEARCH, {})
    opened = [Study(tmp_path, space, settings, {"of": "a test"}) for _ in range(2)]
    yield opened
    for study in opened:
        study.close()


def test_what_is_enqueued_is_not_overtaken_by_another_process(studies):
    mine, other = studies
    (name,) = (dimension.name for dimension in mine.space.dimensions if dimension.is_free)
    with ThreadPoolExecutor(1) as pool:
        asked = []

        def first(room):
            asked.append(pool.submit(other.ask, 1))
            # Many times what it takes where it has not to wait.
            assert wait(asked, timeout=0.5).not_done
            return [({name: 0.25}, "line")]

        ((trial, values),) = mine.ask(1, first)
        ((second, elsewhere),) = asked[0].result()
    assert (trial.number, values[name]) == (0, 0.25)
    assert second.number == 1 and elsewhere[name] != 0.25


def test_no_more_is_enqueued_than_the_budget_takes(studies):
    mine, other = studies
    rooms = []

    def first(room):
        rooms.append(room)
        return []

    assert len(mine.ask(2, first)) == 2
    assert len(other.ask(2, first)) == 1
    assert mine.ask(2, first) == []
    assert rooms == [2, 1]
