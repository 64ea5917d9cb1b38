"""The memory budget, measured on real processes."""

import json
import os
import subprocess
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rlmerge.merging.memory import PeakMemory, anonymous_now
from support.family import COMMAND
from support.models import write_model

MB = 10**6
TOLD = pytest.mark.skipif(anonymous_now() is None, reason="this system does not tell what memory is anonymous")


@TOLD
def test_the_peak_of_a_block_is_seen():
    before = anonymous_now()
    with PeakMemory() as memory:
        held = np.ones(100 * MB, np.uint8)
        time.sleep(0.1)
        del held
    assert 95 * MB < memory.peak - before < 200 * MB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models of 240 MB, all of it in one embedding; the expert changed every eighth row by single steps."""
    folder = tmp_path_factory.mktemp("large")
    words = np.random.default_rng(0).integers(0x3C00, 0x3F80, (58_000, 2048), np.uint16)
    write_model(folder / "base", {"model.embed_tokens.weight": words.view(ml_dtypes.bfloat16)}, "bfloat16")
    words[::8] ^= np.uint16(1)
    write_model(folder / "e0", {"model.embed_tokens.weight": words.view(ml_dtypes.bfloat16)}, "bfloat16")
    return folder


@TOLD
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "nuslerp"])
def test_anonymous_memory_stays_in_the_budget(folder, tmp_path, method):
    """64 MB on top of at most 200 MB for the interpreter, whatever the model's size."""
    experts = ["e0", "e0"] if method == "nuslerp" else ["e0"]
    parameters = {"ties": ["-p", "density=0.3"], "nuslerp": ["-p", "nuslerp_flatten=false"]}.get(method, [])
    arguments = ["merge", "--method", method, *parameters, "--base", "base", *experts, "-o", str(tmp_path / "out")]
    options = ["--memory", "64MB", "--workers", "2", "--quiet", "--format", "json", "--no-cache"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_of(process.pid))
        time.sleep(0.005)
    result = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert 20 * MB < peak < (64 + 200) * MB
    # Both are samples of a process whose memory changes by at most the budget between two of them.
    assert result["peak_memory"] == pytest.approx(peak, abs=64 * MB)


def anonymous_of(pid):
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0
