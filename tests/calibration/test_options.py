import pytest

from rlmerge.calibration.options import CalibrationOptions
from rlmerge.errors import RequestError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fit": "wieght"}, "unknown fit 'wieght'"),
        ({"responses": "drawn"}, "unknown responses 'drawn'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"sequences": 0}, "sequences must be at least 1, not 0"),
        ({"held_out": -1}, "held_out must be at least 0, not -1"),
        ({"ridge": float("nan")}, "ridge must be at least 0, not nan"),
        ({"drift_weight": float("inf")}, "drift_weight must be at least 0, not inf"),
        ({"step": 3}, "unknown option 'step'"),
    ],
)
def test_bad_values_are_refused(given, message):
    with pytest.raises(RequestError, match=message):
        CalibrationOptions.of(**given)


def test_defaults_are_those_of_the_issue():
    """64 prompts an expert, a coefficient for each run of layers."""
    options = CalibrationOptions()
    assert (options.sequences, options.layer_groups, options.kinds, options.fit) == (64, 4, False, "auto")
