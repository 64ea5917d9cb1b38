import json
from dataclasses import dataclass

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Exact, Item, answer, read_items, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load
from support.checkpoints import EXAMPLES as MODELS

VOCABULARY = {"_": 0, "$": 1, "a": 2, "b": 3}


@dataclass
class Chain:
    """Stands for a model whose next token depends on the last one alone, with the given probabilities."""

    rows: np.ndarray

    def logits(self, tokens, start=0, positions=None, visible=None):
        return np.log(self.rows[tokens[:, start:]]) + 3.0

    def greedy(self, tokens, steps):
        out = [tokens[:, -1]]
        for _ in range(steps):
            out.append(self.rows[out[-1]].argmax(axis=-1))
        return np.stack(out[1:], axis=1)


#                         _     $     a     b   is followed by
CHAIN = Chain(np.array([[0.10, 0.20, 0.30, 0.40],
                        [0.25, 0.25, 0.25, 0.25],
                        [0.05, 0.60, 0.15, 0.20],
                        [0.10, 0.20, 0.50, 0.20]]))  # fmt: skip


def test_probability_is_the_product_over_answer_and_end():
    items = [Item("t", "__", ("ba",)), Item("t", "_", ("a",)), Item("u", "a_", ("b",)), Item("u", "__", ("aa",))]
    scores = score(CHAIN, items, VOCABULARY)
    # _→b→a→$, _→a→$, _→b→$ and _→a→a→$ read off the matrix.
    np.testing.assert_allclose(
        scores.probability, [0.4 * 0.5 * 0.6, 0.3 * 0.6, 0.4 * 0.2, 0.3 * 0.15 * 0.6], rtol=1e-12
    )
    # From _ the likeliest chain is b, a, $; every other answer is wrong.
    assert scores.greedy.tolist() == [True, False, False, False]
    assert scores.on("u").probability.tolist() == scores.probability[2:].tolist()
    assert scores.on("u").tasks.tolist() == ["u", "u"]


def test_the_probabilities_of_all_valid_answers_add_up():
    items = [Item("t", "_", ("a", "ab", "b", "ba", "a")), Item("t", "__", ("", "aab"))]
    scores = score(CHAIN, items, VOCABULARY)
    # _→a→$, _→a→b→$, _→b→$, _→b→a→$ (an answer listed twice counts once); _→$, _→a→a→b→$.
    several = 0.3 * 0.6 + 0.3 * 0.2 * 0.2 + 0.4 * 0.2 + 0.4 * 0.5 * 0.6
    np.testing.assert_allclose(scores.probability, [several, 0.2 + 0.3 * 0.15 * 0.2 * 0.2], rtol=1e-12)
    np.testing.assert_allclose(scores.loss, -np.log(scores.probability), rtol=1e-12)
    assert scores.greedy.tolist() == [True, False]  # the likeliest chain from _ is b, a, $


def test_batches_and_lengths_do_not_matter():
    items = [Item("t", "_" * (1 + i % 3), ("ab"[i % 2] * (1 + i % 2),)) for i in range(400)]
    together = score(CHAIN, items, VOCABULARY)
    alone = [score(CHAIN, [item], VOCABULARY).probability[0] for item in items[:6]]
    assert together.probability[:6].tolist() == alone
    assert together.probability[6:12].tolist() == alone


def test_greedy_answer_stops_at_the_end():
    assert answer(CHAIN, "__", VOCABULARY) == "ba"
    assert answer(CHAIN, "_", VOCABULARY, limit=1) == "b"


def test_an_unknown_character_is_named():
    with pytest.raises(RequestError, match=r"no token for 'z'"):
        score(CHAIN, [Item("t", "_z", ("a",))], VOCABULARY)


def test_read_items(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"task": "rev", "prompt": "Rab=", "answer": "ba"}\n')
    assert read_items(file) == (Item("rev", "Rab=", ("ba",)),)
    file.write_text('{"task": "rev", "prompt": "Rab=", "answer": "ba"}\n{"task": "rev"}\n')
    with pytest.raises(RequestError, match=r"items.jsonl:2: "):
        read_items(file)
    file.write_text('{"task": "make", "prompt": "4=", "answers": ["1+3", "2+2"]}\n')
    assert read_items(file) == (Item("make", "4=", ("1+3", "2+2")),)
    file.write_text('{"task": "make", "prompt": "4=", "answers": ["1$"]}\n')
    with pytest.raises(RequestError, match=r"items.jsonl:1: the answer '1\$' holds '\$'"):
        read_items(file)
    file.write_text('{"task": "make", "prompt": "4=", "answers": []}\n')
    with pytest.raises(RequestError, match=r"items.jsonl:1: needs a prompt and an answer"):
        read_items(file)
    with pytest.raises(RequestError, match=r"absent.jsonl: cannot be read"):
        read_items(tmp_path / "absent.jsonl")


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
    with pytest.raises(RequestError, match=r"unknown task 'reverse'(.|\n)*Did you mean 'rev'"):
        Exact.read(items).score(MODELS / "base", ["reverse"])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RequestError, match="holds no items"):
        Exact.read(tmp_path / "empty.jsonl")
