"""Command lines run as a user runs them: real processes with separate streams."""

from functools import partial

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from support.command_line import run_rlmerge


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Statistics of test models stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def rlmerge(tmp_path):
    """Run `rlmerge ARGUMENTS` in an empty directory; the finished process with its stdout and stderr."""
    return partial(run_rlmerge, cwd=tmp_path, timeout=120)


def write_model(directory, tensors):
    """A Hugging Face model directory with one shard."""
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def models(tmp_path):
    """A base of ones and zeros and two experts that each changed one entry of a 4 × 4 matrix, in `tmp_path`."""
    base = {"model.layers.0.w": np.ones((4, 4), np.float32), "model.norm.weight": np.zeros(4, np.float32)}
    write_model(tmp_path / "base", base)
    for name, index in (("math", 0), ("code", 5)):
        weights = base["model.layers.0.w"].copy()
        weights.flat[index] = 3.0
        write_model(tmp_path / name, base | {"model.layers.0.w": weights})
    return tmp_path


ASKED = "merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters: {density: 0.5}\ndtype: bfloat16\n"


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """What a command line asks for, where `recipe.yaml` holds ``ASKED``; raises what the reading raises."""
    from rlmerge.cli.request import read_request, request_options

    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(ASKED)

    def call(*arguments, read_with=read_request):
        read = []

        @click.command()
        @request_options
        def command(**request):
            read.append(read_with(request))

        result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
        if result.exception:
            raise result.exception
        return read[0]

    return call
