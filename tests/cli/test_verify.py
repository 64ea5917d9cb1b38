import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rlmerge.checkpoint import VerifyResult
from rlmerge.cli.verify import verify_text


@pytest.fixture
def merged(models, rlmerge):
    assert rlmerge("merge", "--method", "ties", "--base", "base", "math", "-o", "out", "--quiet").returncode == 0
    return models / "out"


def test_an_untouched_directory_is_ok(merged, rlmerge):
    done = rlmerge("verify", "out")
    assert done.returncode == 0
    assert done.stdout.startswith("out: ok (")
    assert "verify: done" in done.stderr
    assert rlmerge("verify", "out", "--quiet").stderr == ""


def test_one_flipped_bit_is_exit_1_and_named(merged, rlmerge):
    shard = merged / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = rlmerge("verify", "out", "--format", "json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["ok"]) == (1, False)
    assert any("model.safetensors" in problem for problem in result["problems"])
    assert rlmerge("verify", "out").stdout.startswith("out: ")


def test_a_directory_without_manifest_is_exit_2(models, rlmerge):
    done = rlmerge("verify", "base")
    assert (done.returncode, done.stdout) == (2, "")
    assert "MANIFEST.json" in done.stderr


def test_sha256_on_request(merged, rlmerge):
    done = rlmerge("verify", "out", "--sha256", "--quiet")
    listed = subprocess.run(["sha256sum", "--check"], cwd=merged, input=done.stdout, capture_output=True, text=True)
    assert listed.returncode == 0 and listed.stdout.count(": OK") == len(list(merged.iterdir())) - 1
    sums = json.loads(rlmerge("verify", "out", "--sha256", "--format", "json").stdout)["sha256"]
    assert f"{sums['model.safetensors']}  model.safetensors" in done.stdout.splitlines()
    assert json.loads(rlmerge("verify", "out", "--format", "json").stdout)["sha256"] is None


def test_verify_text():
    good = VerifyResult((), 3, 12, 4_000)
    assert verify_text(good, Path("merged"), width=100, color=False) == "merged: ok (3 files, 12 tensors, 4 kB)"
    bad = verify_text(replace(good, problems=("a.bin is extra",)), Path("merged"), width=100, color=False)
    assert bad.splitlines() == ["merged: 1 problem(s) in 3 files, 12 tensors, 4 kB", "", "- a.bin is extra"]
