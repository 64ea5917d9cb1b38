"""A part of the weights: which blocks are read, and errors that hold what the whole says."""

import json

import numpy as np
import pytest

from rlmerge.cli.app import run
from rlmerge.errors import RequestError
from rlmerge.inspection.inspect import inspect
from support.models import write_model

SHAPES = {"model.embed_tokens.weight": (1000, 1000), "model.layers.0.mlp.up_proj.weight": (1500, 1000)}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """2.5 million entries, of which the expert changed a fifth."""
    folder, rng = tmp_path_factory.mktemp("family"), np.random.default_rng(7)
    base = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    changed = {name: w + 0.1 * rng.standard_normal(w.shape) * (rng.random(w.shape) < 0.2) for name, w in base.items()}
    write_model(folder / "base", base)
    write_model(folder / "expert", changed)
    return folder


def test_figures_of_a_sample_are_near_those_of_all(family):
    """Entries are drawn independently, so that four standard errors hold the whole in all but 1 of 10,000 cases."""
    models = family / "base", [family / "expert"]
    whole, found = inspect(*models), inspect(*models, part=650_000)
    sampling = found.sampling
    assert whole.sampling is None and sampling.blocks == 10
    # 39 blocks of 65536: the last of each tensor is shorter, so ten of them are about a quarter.
    assert sampling.share == pytest.approx(0.25, abs=0.02)
    assert found.bytes_read == sampling.coordinates * 4 * 2
    for key in ("relative_norm", "unchanged_bits"):
        error = sampling.experts[0][key]
        assert 0 < error < 0.01
        assert abs(found.experts[0].figures[key].value - whole.experts[0].figures[key].value) < 4 * error + 1e-12
    assert found.forecasts == ()


def test_the_same_sample_each_time(family):
    first, second = (inspect(family / "base", [family / "expert"], part=300_000) for _ in range(2))
    assert first.experts == second.experts and first.sampling == second.sampling


def test_a_sample_of_everything_has_no_error(family):
    whole, found = (inspect(family / "base", [family / "expert"], part=part) for part in (None, 10**9))
    assert found.experts[0].figures["unchanged_bits"].value == whole.experts[0].figures["unchanged_bits"].value
    assert found.sampling.share == 1.0 and set(found.sampling.experts[0].values()) == {0.0}


def test_what_needs_every_weight_is_refused(family):
    for further in ({"spectral": True}, {"merged": family / "expert"}):
        with pytest.raises(RequestError, match="goes without a merge and without spectra"):
            inspect(family / "base", [family / "expert"], part=1000, **further)


def test_the_command_says_that_it_is_a_sample(family, capsys, tmp_path):
    words = ["inspect", str(family / "expert"), "--base", str(family / "base"), "--sample", "--quiet"]
    assert run([*words, "--json", str(tmp_path / "out.json")]) == 0
    told = capsys.readouterr().out
    assert "A sample: 100 % of the weights" in told
    assert json.loads((tmp_path / "out.json").read_text())["sampling"]["share"] == 1.0
    assert run([*words, "--spectral"]) == 2
