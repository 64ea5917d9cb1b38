from pathlib import Path

import numpy as np

from rlmerge.evaluate.answers import AnswerTree, pack
from rlmerge.evaluate.exact import Item, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load

END = 9
BASE = Path(__file__).parents[2] / "examples" / "checkpoints" / "base"


def test_shared_prefixes_are_held_once():
    tree = AnswerTree.build([5, 6], [[1, 2, END], [1, END], [3, END]])
    # Inner prefixes after the prompt: 1, 1 2 and 3.
    assert tree.tokens == (5, 6, 1, 2, 3)
    assert tree.parents == (-1, 0, 1, 2, 1)
    edges = [*zip(tree.sources, tree.targets, tree.before, strict=True)]
    assert edges == [(1, 1, -1), (2, 2, 0), (3, END, 1), (2, END, 0), (1, 3, -1), (4, END, 4)]
    assert tree.ends == (2, 3, 5)


def test_reading_adds_the_answers_up():
    tree = AnswerTree.build([5], [[1, 2, END], [1, END]])
    # 1, then 2 and END, or END at once.
    total, greedy = tree.read(np.log([0.5, 0.25, 0.5, 0.125]), np.array([True, False, True, True]))
    np.testing.assert_allclose(np.exp(total), 0.5 * 0.25 * 0.5 + 0.5 * 0.125, rtol=1e-12)
    assert greedy  # by way of 1, END
    assert not tree.read(np.log([0.5, 0.25, 0.5, 0.125]), np.array([False, True, True, True]))[1]


def test_rows_see_their_ancestors_only():
    plain, forked = AnswerTree.build([5], [[1, END]]), AnswerTree.build([5], [[1, END], [2, END]])
    (packed,) = pack([forked, plain], 8)
    assert packed.members == (1, 0)
    assert packed.tokens.tolist() == [[5, 1, 0], [5, 1, 2]]
    assert packed.positions.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert packed.visible[1].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    (rectangle,) = pack([plain, plain], 8)
    assert rectangle.visible is None


def test_a_tree_scores_as_its_answers_do_one_by_one():
    model, vocabulary = load(BASE), read_vocabulary(BASE)
    answers = ("cba", "cb", "abc", "c", "cbaj", "cab")
    together = score(model, [Item("t", "_______Rabc=", answers), Item("t", "________Rab=", ("ba",))], vocabulary)
    alone = score(model, [Item("t", "_______Rabc=", (answer,)) for answer in answers], vocabulary)
    # float32 matrix products of other shapes round differently: some ulps of logits of size 10, over five tokens.
    np.testing.assert_allclose(together.probability[0], alone.probability.sum(), rtol=2e-5)
    assert together.greedy[0] == alone.greedy.any()
