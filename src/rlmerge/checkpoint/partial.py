"""The hidden directory beside the target in which an output grows until it is complete.

``.<name>.partial`` holds the shards and the journal while a merge runs. Sealing adds the index and the manifest, waits
for everything to be on disk, and renames it. Whatever bears the final name is therefore complete, and whatever a killed
run leaves is either continued by the next or thrown away.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlmerge import __version__
from rlmerge.checkpoint import journal as journals
from rlmerge.checkpoint import manifest as manifests
from rlmerge.checkpoint.directory import INDEX
from rlmerge.checkpoint.failures import preparing, writing
from rlmerge.checkpoint.hashing import unwatched
from rlmerge.checkpoint.journal import Journal, JournalEntry, read_journal
from rlmerge.checkpoint.layout import ShardPlan, index_json
from rlmerge.checkpoint.manifest import FileRecord, Manifest, TensorRecord
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.recheck import recheck
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.checkpoint.target import check_target, lock, publish, sync_directory
from rlmerge.errors import RequestError

_MAX_SIDE_FILE = 2**30


class PartialDirectory:
    """An output directory in the making; only one process can hold it.

    ``plan_digest`` must cover all that decides the output's bytes: recipe, inputs, layout, seed, and version.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        plan_digest: str,
        *,
        resume: bool = False,
        force: bool = False,
        advance: Callable[[int], None] = unwatched,
    ) -> None:
        """Create the directory, or with ``resume`` take up what an interrupted run of the same plan left.

        What is taken up is read again and compared with its digests; ``advance`` is told the bytes. RequestError if the
        target exists and ``force`` is not given, if it cannot be created, if another process is writing, or if an
        interrupted run left finished tensors that would be lost (no ``resume``, or another plan) without ``force``.
        """
        target = Path(os.path.abspath(target))  # noqa: PTH100 - a link at the target itself must stay visible
        self.target = target.parent.resolve() / target.name
        self.path = self.target.with_name(f".{self.target.name}.partial")
        self._force = force
        self._plan_digest = plan_digest
        with preparing(self.target):
            check_target(self.target, force)
        self._lock = lock(self.path)
        try:
            claims = self._claims(resume)
            shards = {claim.shard for claim in claims.values()}
            found = {name: recheck(self.path / name, claims, advance) for name in sorted(shards)}
            self._kept = {name: kept for name, kept in found.items() if kept is not None}
            self._clear(except_for={journals.NAME, *self._kept})
            entries = (claims[name] for kept in self._kept.values() for name in kept.names)
            self._journal = Journal(self.path, plan_digest, entries)
        except BaseException:
            os.close(self._lock)
            raise
        self._completed = dict(self._journal.entries)
        self._files: dict[str, FileRecord] = {}
        self._writers: dict[str, ShardWriter] = {}
        self._syncs: list[Future[None]] = []
        self._syncer = ThreadPoolExecutor(1, "rlmerge-sync")

    def completed(self) -> Mapping[str, JournalEntry]:
        """The tensors taken up from an interrupted run, by name; they need not be written again."""
        return self._completed

    def shard_writer(self, shard: ShardPlan) -> ShardWriter:
        """A writer for the tensors of ``shard`` that are still ``pending``; finishing the last one starts its fsync."""
        path, kept = self.path / shard.name, self._kept.get(shard.name)
        writer = ShardWriter(path, shard, self._journal, kept, when_complete=self._start_sync)
        self._writers[shard.name] = writer
        return writer

    def write_file(self, name: str, data: bytes) -> None:
        """Add a file that is not a shard; ``name`` may have subdirectories, separated by ``/``."""
        inside(self.path, name, nested=True)
        if name in self._writers or name in (journals.NAME, manifests.NAME):
            raise ValueError(f"{name} is not free for a side file")
        self._write(name, data)
        self._files[name] = FileRecord(hashlib.sha256(data).hexdigest(), len(data))

    def copy_file(self, source: Path, name: str | None = None) -> None:
        """Add a byte for byte copy of ``source``, under its own name if none is given."""
        self.write_file(name or source.name, read_bytes(source, _MAX_SIDE_FILE))

    def seal(self, shards: Sequence[ShardPlan]) -> Manifest:
        """Complete the directory and give it its final name; the manifest it holds.

        Order on disk: shards, side files, index, manifest, directory, rename, parent. A failure before the rename
        leaves the partial directory for a resumed run. ValueError if a tensor of ``shards`` is still to be written.
        """
        for shard in shards:
            writer = self._writers.get(shard.name) or self.shard_writer(shard)
            if writer.pending:
                raise ValueError(f"{len(writer.pending)} tensors of {shard.name} have not been written")
        for sync in self._syncs:
            sync.result()
        if len(shards) > 1:
            self.write_file(INDEX, index_json(shards))
        manifest = self._manifest(shards)
        self._write(manifests.NAME, manifest.to_json())
        with writing(self.path):
            for directory in {(self.path / name).parent for name in (*self._files, manifests.NAME)}:
                sync_directory(directory)
        self._publish()
        return manifest

    def abandon(self) -> None:
        """Remove the directory and everything in it."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Let go of files and lock. What was not sealed stays for a resumed run."""
        self._syncer.shutdown()
        for writer in self._writers.values():
            writer.close()
        self._journal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> PartialDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claims(self, resume: bool) -> dict[str, JournalEntry]:
        """The journal entries to take up, by tensor; RequestError rather than lose some unasked."""
        found = read_journal(self.path)
        if found is None:
            return {}
        digest, entries = found
        if resume and digest == self._plan_digest:
            return {entry.tensor: entry for entry in entries}
        if not entries or self._force:
            return {}
        if resume:
            what = "an interrupted run with another recipe, input, option or version left finished tensors there"
            hint = "Repeat that run's settings, or discard its work with --force."
        else:
            what = f"an interrupted run left {len(entries)} finished tensors there"
            hint = "Continue it with --resume, or discard its work with --force."
        raise RequestError(what, where=str(self.path), hint=hint)

    def _clear(self, except_for: set[str]) -> None:
        """Remove all other entries of the directory."""
        with preparing(self.path):
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name not in except_for:
                    entry.unlink()

    def _start_sync(self, writer: ShardWriter) -> None:
        """Write a finished shard to disk while the merge goes on."""
        self._syncs.append(self._syncer.submit(_sync_and_close, writer))

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())

    def _manifest(self, shards: Sequence[ShardPlan]) -> Manifest:
        files = dict(self._files)
        tensors: dict[str, TensorRecord] = {}
        for shard in shards:
            files[shard.name] = FileRecord(self._writers[shard.name].digest.sha256(), shard.size)
            for tensor in shard.tensors:
                digest = self._journal.entries[tensor.name].xxh3
                tensors[tensor.name] = TensorRecord(shard.name, tensor.dtype.code, tensor.shape, digest)
        return Manifest(__version__, files, tensors)

    def _publish(self) -> None:
        """Rename, and remove a replaced target once the rename is on disk."""
        self._journal.remove()
        try:
            replaced = publish(self.path, self.target, self._force)
        except BaseException:
            self._journal = Journal(self.path, self._plan_digest, self._journal.entries.values())
            raise
        with writing(self.target):
            sync_directory(self.target)
            sync_directory(self.target.parent)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)


def _sync_and_close(writer: ShardWriter) -> None:
    writer.sync()
    writer.close()
