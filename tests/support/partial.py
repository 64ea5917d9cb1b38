"""Output directories that are begun and left, or written over."""

from rlmerge.checkpoint import PartialDirectory, verify
from rlmerge.checkpoint.target import partial_path


def begin_and_stop(target, plan, count):
    """Finish the first ``count`` tensors, begin the next, and leave as a dying process would."""
    shards, values = plan
    with PartialDirectory(target, "plan") as unfinished:
        for shard in shards:
            writer = unfinished.shard_writer(shard)
            for tensor in writer.pending:
                if count == 0:
                    writer.write(tensor.name, values[tensor.name][:5])
                    return
                writer.write(tensor.name, values[tensor.name])
                writer.finish_tensor(tensor.name, {"survived": tensor.nbytes})
                count -= 1


def again(target, plan, write_shards):
    """Write the same output over an old one; nothing may be left but it."""
    shards, values = plan
    with PartialDirectory(target, "plan", force=True) as unfinished:
        assert unfinished.completed() == {}
        write_shards(unfinished, shards, values)
        unfinished.seal(shards)
    assert verify(target).ok
    assert not partial_path(target).exists()
