"""SIGKILL, in real processes: whatever the moment, the run can be resumed to the same bytes."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlmerge.checkpoint import PartialDirectory, verify
from rlmerge.checkpoint.output_file import DIRECT_FROM, takes_direct


@pytest.mark.parametrize("way", ["through the cache", "direct"])
def test_at_every_system_call(tmp_path, way):
    if way == "direct" and not takes_direct(tmp_path, DIRECT_FROM):
        pytest.skip("no file system that is written past the cache")
    sweep = [sys.executable, str(Path(__file__).with_name("kill_sweep.py")), str(tmp_path), way]
    done = subprocess.run(sweep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A run makes about 40 calls (five tensors of two writes and a journal line, three shards to reserve, to head and to
    # sync, the steps of sealing). It dies at each, without and with an old target and once more after an earlier death,
    # and at each write with half of it done.
    assert int(done.stdout) > 100


SLOW = """
import sys, time
import numpy as np
from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards
from rlmerge.kernels.dtypes import BY_NAME

tensors = [OutputTensor(f"t{index}", BY_NAME["bfloat16"], (1000,)) for index in range(40)]
shards = plan_shards(tensors, 10_000)
with PartialDirectory(sys.argv[1], "plan", resume=True) as partial:
    print("begun", len(partial.completed()), flush=True)
    for shard in shards:
        writer = partial.shard_writer(shard)
        for tensor in writer.pending:
            time.sleep(float(sys.argv[2]))
            writer.write(tensor.name, np.full(1000, int(tensor.name[1:]), np.uint16))
            writer.finish_tensor(tensor.name, {})
    partial.seal(shards)
"""


def test_from_outside_at_random_moments(tmp_path, tree):
    def run(target, pause):
        command = [sys.executable, "-c", SLOW, str(tmp_path / target), str(pause)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    assert run("undisturbed", 0).wait() == 0
    rng, progress = random.Random(1), []
    for _ in range(5):
        with run("killed", 0.01) as process:
            progress.append(int(process.stdout.readline().split()[1]))
            time.sleep(rng.uniform(0.02, 0.1))
            process.kill()
        assert not (tmp_path / "killed").exists()
    assert progress == sorted(progress) and progress[-1] > 0, "what was finished is never lost"
    assert run("killed", 0).wait() == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")
    assert verify(tmp_path / "killed").ok


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "out"), "1"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
    PartialDirectory(tmp_path / "out", "other plan").close()
