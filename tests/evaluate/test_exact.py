import json
from pathlib import Path

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Exact
from rlmerge.evaluate.tasks import read_items, read_vocabulary, score
from rlmerge.evaluate.tiny import load

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture
def items(tmp_path):
    rows = [json.loads(line) for line in (MODELS / "data" / "test.jsonl").read_text().splitlines()]
    kept = [row for task in ("rev", "cnt") for row in [row for row in rows if row["task"] == task][:6]]
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return file


def test_scores_are_the_tasks_own(items):
    exact = Exact.read(items)
    assert exact.tasks == ("rev", "cnt")
    pass1, greedy = exact.score(MODELS / "rl-rev", ["rev"])
    found = score(load(MODELS / "rl-rev"), read_items(items), read_vocabulary(MODELS / "rl-rev")).on("rev")
    assert (pass1.metric, pass1.n, pass1.k) == ("pass@1", 6, None)
    # Matrix products of other batches round differently in float32: 24 bits, some hundred operations deep.
    np.testing.assert_allclose(pass1.items, found.probability, rtol=1e-4)
    assert pass1.value == pytest.approx(np.mean(pass1.items), rel=1e-12)
    assert (greedy.metric, greedy.value) == ("greedy", found.greedy.mean())


def test_tasks_come_in_the_order_they_are_asked_for(items):
    assert [score.task for score in Exact.read(items).score(MODELS / "base", ["cnt", "rev"])] == [
        *("cnt", "cnt"),
        *("rev", "rev"),
    ]


def test_a_limit_takes_the_first_items_of_each_task(items):
    whole, part = (Exact.read(items, limit).score(MODELS / "base", ["cnt"])[0] for limit in (None, 2))
    np.testing.assert_allclose(part.items, whole.items[:2], rtol=1e-4)
    assert part.n == 2


def test_the_identity_follows_the_items(items):
    before = Exact.read(items).identity()
    assert Exact.read(items).identity() == before
    assert Exact.read(items, 3).identity() != before
    items.write_text(items.read_text() + items.read_text().splitlines()[0] + "\n")
    assert Exact.read(items).identity() != before


def test_what_cannot_be_scored(items, tmp_path):
    with pytest.raises(RequestError, match=r"has no task 'reverse'(.|\n)*Did you mean 'rev'"):
        Exact.read(items).score(MODELS / "base", ["reverse"])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RequestError, match="holds no items"):
        Exact.read(tmp_path / "empty.jsonl")
