"""What a resumed run may keep of a shard: the finished tensors whose bytes still have the digests in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rlmerge.checkpoint.hashing import ShardHash, read_through
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.journal import JournalEntry
from rlmerge.checkpoint.layout import ShardPlan
from rlmerge.checkpoint.paths import open_regular, unreadable
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen


@frozen(slots=True)
class KeptShard:
    """A shard's leading bytes up to the data, the names of its first finished tensors, and the digest of all that."""

    header: bytes
    names: tuple[str, ...]
    digest: ShardHash


def recheck(file: Path, claims: Mapping[str, JournalEntry], advance: Callable[[int], None]) -> KeptShard | None:
    """Read the tensors that ``claims`` names, in file order up to the first that is not claimed or not as claimed.

    None if the file is missing, a link, or not even its header is sound. ``advance`` is told the bytes read.
    """
    try:
        fd = open_regular(file, follow=False)
    except CheckpointError:
        return None
    try:
        header = read_header(file)
        leading = os.pread(fd, 8, 0)
        leading += os.pread(fd, int.from_bytes(leading, "little"), 8)
        running = ShardHash(leading)
        names, digest = list[str](), running.copy()
        for tensor in header.tensors.values():
            claim = claims.get(tensor.name)
            if claim is None or not read_through(fd, tensor.start, tensor.nbytes, running.update):
                break
            advance(tensor.nbytes)
            if running.finish_tensor() != claim.xxh3:
                break
            names.append(tensor.name)
            digest = running.copy()
        return KeptShard(leading, tuple(names), digest)
    except CheckpointError:
        return None
    except OSError as error:
        raise unreadable(file, error) from error
    finally:
        os.close(fd)


def recheck_shards(
    folder: Path, claims: Mapping[str, JournalEntry], shards: Iterable[ShardPlan], advance: Callable[[int], None]
) -> dict[str, KeptShard]:
    """What is kept of each shard in ``folder`` that ``claims`` names, by its name.

    Of one that is in ``shards`` nothing is kept if its layout differs.
    """
    planned = {shard.name: shard for shard in shards}
    found: dict[str, KeptShard] = {}
    for name in sorted({claim.shard for claim in claims.values()}):
        of_shard = {tensor: claim for tensor, claim in claims.items() if claim.shard == name}
        kept = recheck(folder / name, of_shard, advance)
        if kept is not None and (not planned or (name in planned and planned[name].header == kept.header)):
            found[name] = kept
    return found
