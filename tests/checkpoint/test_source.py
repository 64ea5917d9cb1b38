import numpy as np

from rlmerge.checkpoint import Extent, InputFile
from rlmerge.checkpoint.source import Scratch
from rlmerge.kernels.dtypes import FLOAT32


def test_values_that_do_not_begin_at_a_multiple_of_their_size_are_copied(tmp_path):
    values = np.arange(6, dtype="<f4")
    (tmp_path / "f").write_bytes(b"\0" * 8 + values.tobytes() + b"\0" + values.tobytes())
    file = InputFile(tmp_path / "f")
    even, odd = (Extent("w", FLOAT32, (6,), file, start, start + 24) for start in (8, 33))
    assert even.scratch == Scratch()
    assert odd.scratch == Scratch(0, 4)
    assert even.read(1, 4).tolist() == odd.read(1, 4).tolist() == [1, 2, 3]
    assert odd.read().flags.aligned
