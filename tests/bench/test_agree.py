import numpy as np
import pytest
from _agree import Agreement, changed_share, compare, steps, threshold_ties
from _write import ModelWriter


def model(directory, values, name="w"):
    """A bfloat16 model of one tensor; values must be exact in bfloat16."""
    writer = ModelWriter(directory, {name: (len(values),)}, {}, "bfloat16")
    writer.append(name, (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16))
    writer.close()
    return directory


def test_steps_count_values_of_the_type_across_zero():
    # +0, −0, the smallest positive and negative, 1.0 and the value after it
    left = np.array([0x0000, 0x0000, 0x0001, 0x3F80], np.uint16)
    right = np.array([0x8000, 0x8001, 0x8001, 0x3F81], np.uint16)
    assert steps(left, right).tolist() == [0, 1, 2, 1]


def test_compare_sorts_entries_by_distance_and_excuse(tmp_path):
    one = model(tmp_path / "one", [1.0, 1.0, 1.0, 1.0])
    two = model(tmp_path / "two", [1.0, 1.0078125, 1.5, 2.0])  # 0, 1, 64 and 128 steps away
    assert compare(one, two) == Agreement(equal=1, one_step=1, wrong=2)
    excuse = {"w": np.array([False, False, True, False])}
    assert compare(one, two, excuse.__getitem__) == Agreement(equal=1, one_step=1, excused=1, wrong=1)
    assert changed_share(one, two) == 0.75


def test_compare_refuses_different_tensors(tmp_path):
    with pytest.raises(SystemExit, match="different tensors"):
        compare(model(tmp_path / "one", [1.0]), model(tmp_path / "two", [1.0], name="v"))


def test_only_entries_at_the_threshold_are_excused(tmp_path):
    base = model(tmp_path / "base", [0.0] * 5)
    # Keeping 2 of 5, the second largest change is 2: both entries of size 2 are tied, 3 is kept and 1 dropped anyway.
    tied = model(tmp_path / "tied", [3.0, -2.0, 2.0, 1.0, 0.0])
    assert threshold_ties(base, [tied], 0.4)("w").tolist() == [False, True, True, False, False]
    # Keeping 4 of 5 with 2 changed, the threshold is 0, and unchanged entries are no choice.
    sparse = model(tmp_path / "sparse", [3.0, 0.0, 0.0, 1.0, 0.0])
    assert not threshold_ties(base, [sparse], 0.8)("w").any()
