"""The missing extra is named, with its remedy."""

import sys

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.extra import need
from rlmerge_lab.scaling.law import fit


def test_the_module_is_returned():
    assert need("scipy.stats").norm.cdf(0) == 0.5


def test_its_absence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(RequestError, match=r"scipy.*not installed") as refusal:
        fit((1, 10), (0.5, 0.9))
    assert "pip install 'rlmerge[scaling]'" in str(refusal.value)
