from __future__ import annotations

import pytest

from rlmerge.errors import RequestError
from rlmerge.sensitivity.options import SensitivityOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "emprical"}, "Did you mean 'empirical'"),
        ({"dtype": "bf16"}, "unknown dtype 'bf16'"),
        ({"sequences": 0}, "sequences must be at least 1, not 0"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"max_length": 1}, "max_length must be at least 2"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"mode": "reward"}, "needs a reward"),
        ({"reward": "exact"}, "no meaning in mode 'empirical'"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(RequestError, match=message):
        SensitivityOptions(**options)


def test_the_smallest_values_are_accepted():
    SensitivityOptions(sequences=1, samples=1, max_length=2, max_new_tokens=1, batch_size=1)
    assert SensitivityOptions().sequences is None
