"""Memory of merges in memory: nobody's is used again, and nobody else's is overwritten."""

import numpy as np

from rlmerge.search.candidates import _Memory


def test_memory_is_used_again_once_nobody_looks_at_it():
    pool = _Memory()
    first, second = pool.take(100), pool.take(100)
    assert first is not second
    address = first.ctypes.data
    view = first[10:12].view(np.uint16)
    view[:] = 7
    del first
    # A view keeps it in use, and the other is in use as well.
    third = pool.take(50)
    third[:] = 0
    assert view.tolist() == [7]
    del view
    again = pool.take(80)
    assert again.ctypes.data == address
    del again, second, third


def test_what_is_too_small_is_given_back_before_more_is_taken():
    pool = _Memory()
    pool.take(10)
    large = pool.take(1000)
    assert len(large) == 1000
    assert len(pool._held) == 1
