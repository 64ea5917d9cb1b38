import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.picked_rows import MIX, PADDING, ZERO
from rlmerge.checkpoint.tokenizer import TokenizerReader
from rlmerge.checkpoint.vocabulary import Member, Vocabulary, rows_of, unused_rows
from support.tokenizers import write_tables, write_tokenizer


@pytest.fixture
def members(tmp_path):
    """Three models of four rows."""
    found = []
    for k in range(3):
        folder = write_tokenizer(write_tables(tmp_path / f"m{k}", 4, start=100.0 * k), ["a", "b", "c", "d"])
        checkpoint = open_checkpoint(folder)
        found.append(Member(checkpoint, TokenizerReader().read(checkpoint.side_root)))
    return tuple(found)


ALL = (True, True, True)


def vocabulary(members, own, **more):
    ids = {f"t{i}": i for i in range(len(own[0]))}
    return Vocabulary(members, members[0], ids, len(ids), len(ids), np.array(own, np.int32), **more)


def picked(found, index, present=ALL):
    rows = found.rows(index, present)
    return list(zip(rows.table.tolist(), rows.row.tolist(), strict=True))


def test_own_rows_the_bases_one_owners_the_mean_and_nothing(members):
    found = vocabulary(members, [[0, 1, -1, -1, -1], [3, -1, 2, 1, -1], [-1, -1, -1, 0, -1]])
    assert picked(found, 0) == [(0, 0), (0, 1), (1, 2), (MIX, 0), (ZERO, 0)]
    assert picked(found, 1) == [(1, 3), (0, 1), (1, 2), (1, 1), (ZERO, 0)]
    assert picked(found, 2) == [(0, 0), (0, 1), (1, 2), (2, 0), (ZERO, 0)]
    mixes = found.rows(0, ALL).mixes
    assert (mixes.table.tolist(), mixes.row.tolist(), mixes.divisor.tolist()) == ([1, 2], [1, 0], [2.0])
    assert found.unfilled() == ["t4"]


def test_given_and_forced(members):
    own = [[0, 1, -1], [-1, 2, 3], [2, -1, 1]]
    found = vocabulary(members, own, given={0: (2, 3), 1: None}, forced=frozenset({1}))
    assert picked(found, 0) == [(0, 0), (ZERO, 0), (MIX, 0)]
    assert picked(found, 1) == [(2, 3), (ZERO, 0), (1, 3)]
    assert vocabulary(members, [[-1], [-1], [-1]], given={0: None}).unfilled() == []


def test_a_member_without_the_table_is_no_owner(members):
    found = vocabulary(members, [[0, -1, -1], [-1, 2, 3], [2, 1, -1]], given={2: (1, 0)})
    assert picked(found, 2, (True, False, True)) == [(2, 2), (2, 1), (ZERO, 0)]
    assert picked(found, 0, (True, False, True)) == [(0, 0), (2, 1), (ZERO, 0)]


def test_rows_of_no_token_are_padding_unless_kept(members):
    own = np.array([[0, -1], [1, -1], [2, -1]], np.int32)
    for kept, expected in ((True, ZERO), (False, PADDING)):
        found = Vocabulary(members, members[0], {"t": 0}, 1, 2, own, kept=kept)
        assert [picked(found, k)[1][0] for k in range(3)] == [expected] * 3


def test_tables_that_are_in_order_stay_the_same_objects(members):
    found = vocabulary(members, [[0, 1, 2, 3]] * 3)
    tensors = found.tensors(members[1].checkpoint)
    assert tensors == members[1].checkpoint.tensors
    assert list(tensors) == list(members[1].checkpoint.tensors)
    other = open_checkpoint(members[1].checkpoint.path)
    assert found.tensors(other) is other.tensors


def test_a_member(members):
    assert (members[0].rows, dict(members[0].ids)) == (4, {"a": 0, "b": 1, "c": 2, "d": 3})
    assert set(members[0].tables) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert rows_of(members[0], {"d": 0, "x": 1, "b": 2, "a": 9}, 3).tolist() == [3, -1, 1]
    assert unused_rows({"a": 1, "b": 7}, 4).tolist() == [True, False, True, True]
