import numpy as np
import pytest

from rlmerge.inspection.inspect import inspect
from rlmerge.options import Options
from support.models import write_model


class Messages:
    def __init__(self):
        self.said = []

    def start(self, phase, total, unit=""): ...
    def advance(self, nbytes): ...
    def done(self): ...

    def message(self, text):
        self.said.append(text)


def test_every_matrix_and_expert_against_numpy(tmp_path):
    rng = np.random.default_rng(0)
    base = {"a": rng.standard_normal((12, 8)), "v": np.ones(5)}
    moved = {"a": base["a"] + 0.01 * rng.standard_normal((12, 8)), "v": np.zeros(5)}
    write_model(tmp_path / "base", base, "float64")
    write_model(tmp_path / "e", moved, "float64")
    (found,) = inspect(tmp_path / "base", [tmp_path / "e"], spectral=True).spectra
    first, second = (np.linalg.svd(m["a"], compute_uv=False) for m in (base, moved))
    assert (found.tensor, found.expert, found.rank, found.error) == ("a", "e", 8, 0.0)
    assert found.nss == pytest.approx(np.linalg.norm(second - first) / np.linalg.norm(first), rel=1e-9)


def test_nan_is_left_out_and_a_small_budget_is_named(tmp_path):
    base = {"a": np.ones((4, 4)), "big": np.zeros((1500, 1500))}
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "e", base | {"a": np.full((4, 4), np.nan)})
    progress = Messages()
    found = inspect(
        tmp_path / "base", [tmp_path / "e"], spectral=True, options=Options(memory=32 * 2**20), progress=progress
    )
    assert found.spectra == ()
    assert "left out 1 of 2 matrices" in progress.said[0] and "--memory 52MiB" in progress.said[0]
