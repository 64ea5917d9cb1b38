"""The hidden directory beside the target in which an output grows until it is complete.

``.<name>.partial`` holds a journal and the directory ``model`` that will become the output. Sealing adds the index and
the manifest, waits for everything to be on disk, and renames ``model``. Whatever bears the final name is therefore
complete, and whatever a killed run leaves is either continued by the next or thrown away: the journal says that it is
ours. A directory of that name without a journal is somebody else's and never touched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlmerge import __version__
from rlmerge.checkpoint import journal as journals
from rlmerge.checkpoint import manifest as manifests
from rlmerge.checkpoint import shares
from rlmerge.checkpoint.directory import INDEX
from rlmerge.checkpoint.durable import copy_file, sync_directory, write_file
from rlmerge.checkpoint.failures import finishing, preparing, writing
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.hashing import BLAKE3, new_digest, unwatched
from rlmerge.checkpoint.journal import Journal, JournalEntry, read_journal
from rlmerge.checkpoint.layout import ShardPlan, index_json
from rlmerge.checkpoint.manifest import FileRecord, Manifest, TensorRecord
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.recheck import recheck_shards
from rlmerge.checkpoint.shard_writer import ShardWriter, new_pools
from rlmerge.checkpoint.shares import Share
from rlmerge.checkpoint.target import check_target, lock, partial_path, publish
from rlmerge.errors import RequestError, RunError

if TYPE_CHECKING:
    from rlmerge.checkpoint.remote.upload import Upload

_MODEL = "model"
_REPLACED = "replaced"
"""An old target while there is none, on file systems that cannot swap."""


class PartialDirectory:
    """An output directory in the making; only one process can hold it. ``path`` is where it grows.

    A target that stands for an address (``remote.upload``) grows here all the same, but is published there.

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
        shards: Sequence[ShardPlan] = (),
        accepts: Callable[[JournalEntry], bool] = lambda entry: True,
        share: Share | None = None,
        adopt: Callable[[Path], None] | None = None,
    ) -> None:
        """Create the directory, or with ``resume`` take up what an interrupted run of the same plan left.

        What is taken up is read again and compared with its digests; ``advance`` is told the bytes. Of a shard that is
        in ``shards`` nothing is taken up if its layout differs, nor a tensor whose journal entry ``accepts`` denies.
        With ``share`` it is the directory of one process of several, which ``finish`` ends; ``adopt`` is given the
        directory once it is locked, to take up what those left.
        RequestError if the target exists and ``force`` is not given, if it cannot be created, if another process is
        writing, if the directory is not ours, or if an interrupted run left finished tensors that would be lost (no
        ``resume``, or another plan) without ``force``.
        """
        with preparing(Path(target)):
            target = Path(os.path.abspath(target))  # noqa: PTH100 - a link at the target itself must stay visible
            self.target = target.parent.resolve() / target.name
        self._force = force
        self._plan_digest = plan_digest
        check_target(self.target, force)
        self._home = home = partial_path(self.target)
        self._upload = uploading(self.target)
        if self._upload is not None:
            self._upload.check(home, force)
        self._lock = self._joined = -1
        self._made = [place for place in self.target.parents if not os.path.lexists(place)]
        if share is not None:
            self._joined = shares.enter(home, share, plan_digest)
            self._home = home / share.directory
        self.path = self._home / _MODEL
        self._lock = self._take(share)
        fresh = False
        try:
            if share is None:
                self._take_up(adopt)
            found = self._own()
            fresh = found is None
            claims = self._claims(found, resume, accepts)
            sent = self._upload.begin(self._home, plan_digest, claims, shards) if self._upload else {}
            here = {name: claim for name, claim in claims.items() if claim.shard not in sent}
            self._kept = {**sent, **recheck_shards(self.path, here, shards, advance)}
            self._clear()
            entries = (claims[name] for kept in self._kept.values() for name in kept.names)
            self._journal = Journal(self._home, plan_digest, entries)
            with preparing(self.path):
                self.path.mkdir(exist_ok=True)
        except BaseException:
            if self._upload is not None:
                self._upload.close()
            if fresh:
                self._remove()
            with suppress(OSError):
                self._home.rmdir()  # if it is empty, as we made it
            self._remove_parents()
            self._unlock()
            raise
        self._completed = dict(self._journal.entries)
        self._files: dict[str, FileRecord] = {}
        self._writers: dict[str, ShardWriter] = {}
        self._syncs: list[Future[None]] = []
        self._syncer = ThreadPoolExecutor(1, "rlmerge-sync")
        self._pools = new_pools()

    def completed(self) -> Mapping[str, JournalEntry]:
        """The tensors taken up from an interrupted run, by name; they need not be written again."""
        return self._completed

    def shard_writer(self, shard: ShardPlan) -> ShardWriter:
        """A writer for the tensors of ``shard`` that are still ``pending``; finishing the last one starts its fsync."""
        path, kept = self.path / shard.name, self._kept.get(shard.name)
        # What is uploaded is read at once.
        direct = self._upload is None
        writer = ShardWriter(path, shard, self._journal, kept, self._start_sync, self._pools, direct)
        self._writers[shard.name] = writer
        return writer

    def write_file(self, name: str, data: bytes) -> None:
        """Add a file that is not a shard; ``name`` may have subdirectories, separated by ``/``."""
        path = self._free(name)
        with writing(path):
            write_file(path, data)
        self._files[name] = FileRecord(new_digest(BLAKE3, data).hexdigest(), len(data))

    def copy_file(self, source: Path | InputFile, name: str | None = None) -> None:
        """Add a byte for byte copy of a regular file, under its own name if none is given; any size, little memory.

        RunError if it cannot be read any more, or has changed since the ``InputFile`` was made.
        """
        name = name or (source.path if isinstance(source, InputFile) else source).name
        self._files[name] = FileRecord(*copy_file(source, self._free(name)))

    def seal(self, shards: Sequence[ShardPlan]) -> Manifest:
        """Complete the directory and give it its final name; the manifest it holds.

        Order on disk: shards, side files, index, manifest, directory, rename, parent. A failure before the rename
        leaves the partial directory for a resumed run; a RunError after it says that the output is complete. ValueError
        if a tensor of ``shards`` is still to be written.
        """
        self._check_written(shards)
        if len(shards) > 1:
            self.write_file(INDEX, index_json(shards))
        manifest = self._manifest(shards)
        path = self.path / manifests.NAME
        with writing(path):
            write_file(path, manifest.to_json())
            for directory in {(self.path / name).parent for name in (*self._files, manifests.NAME)}:
                sync_directory(directory)
        self._publish(manifest)
        self._journal.close()
        with suppress(RunError):
            # Should we be killed now, nothing must look like finished tensors of a run that can go on.
            Journal(self._home, self._plan_digest).close()
        self._remove()
        if self._upload is not None:
            with suppress(OSError):
                self._home.parent.rmdir()  # which is that of this address alone
        return manifest

    def finish(self, shards: Sequence[ShardPlan]) -> None:
        """Wait until all ``shards`` of a share are on disk; RunError if they do not get there.

        ValueError if a tensor of them is still to be written.
        """
        self._check_written(shards)
        with writing(self.path):
            sync_directory(self.path)
            sync_directory(self._home)

    def abandon(self) -> None:
        """Remove the directory and everything in it, and the directories above it that were made for it."""
        self.close()
        if self._upload is not None:
            self._upload.discard()
        self._remove()
        self._remove_parents()

    def close(self) -> None:
        """Let go of files and lock. What was not sealed stays for a resumed run."""
        with ExitStack() as undo:  # Whatever fails, the lock is let go of, last of all.
            undo.callback(self._unlock)
            undo.callback(self._journal.close)
            undo.callback(self._pools.shutdown)
            for writer in self._writers.values():
                undo.callback(writer.close)
            if self._upload is not None:
                undo.callback(self._upload.close)
            self._syncer.shutdown()

    def __enter__(self) -> PartialDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_written(self, shards: Sequence[ShardPlan]) -> None:
        """ValueError if a tensor of ``shards`` is missing; else waits until they are on disk."""
        for shard in shards:
            writer = self._writers.get(shard.name) or self.shard_writer(shard)
            if writer.pending:
                raise ValueError(f"{len(writer.pending)} tensors of {shard.name} have not been written")
        for sync in self._syncs:
            sync.result()
        if self._upload is not None:
            self._upload.wait()

    def _take(self, share: Share | None) -> int:
        """The lock of this directory; RequestError if another process holds it."""
        try:
            return lock(self._home)
        except RequestError as error:
            self._unlock()
            if share is None or not isinstance(error.__context__, BlockingIOError):
                raise
            hint = "Give each process a share of its own, or wait for that one to end."
            what = f"share {share} is being merged by another process"
            raise RequestError(what, where=error.where, hint=hint) from None

    def _unlock(self) -> None:
        for fd in (self._lock, self._joined):
            if fd >= 0:
                os.close(fd)
        self._lock = self._joined = -1

    def _take_up(self, adopt: Callable[[Path], None] | None) -> None:
        """Adopt the shares that several processes left; RequestError rather than lose them unasked."""
        if adopt is not None:
            adopt(self._home)
        elif found := shares.shares_in(self._home):
            if not self._force:
                what = f"a merge shared by {next(iter(found)).count} processes has its work there"
                hint = "Complete it with rlmerge seal, or discard it with --force."
                raise RequestError(what, where=str(self._home), hint=hint)
            shares.discard(self._home)

    def _own(self) -> tuple[str, list[JournalEntry]] | None:
        """The journal of an earlier run, None in a new directory; RequestError if the directory is not ours.

        A target that an interrupted run had moved aside goes back to its place.
        """
        with preparing(self._home):
            names = {entry.name for entry in self._home.iterdir()}
        found = read_journal(self._home)
        if found is None and names - {journals.NAME, journals.FRESH}:
            hint = "Look at what is in it and move it away, or choose another output directory."
            what = "is in the way: it is not what an interrupted run leaves, for it holds no readable journal"
            raise RequestError(what, where=str(self._home), hint=hint)
        if _REPLACED in names:
            if os.path.lexists(self.target):
                shutil.rmtree(self._home / _REPLACED, ignore_errors=True)
            else:
                with preparing(self.target):
                    (self._home / _REPLACED).rename(self.target)
                check_target(self.target, self._force)
        return found

    def _claims(
        self,
        found: tuple[str, list[JournalEntry]] | None,
        resume: bool,
        accepts: Callable[[JournalEntry], bool],
    ) -> dict[str, JournalEntry]:
        """The journal entries to take up, by tensor; RequestError rather than lose some unasked."""
        if found is None:
            return {}
        digest, entries = found
        # A run that was killed right after its output had appeared leaves a journal, but none of the files.
        shards = set[str]() if self.path.is_symlink() else {entry.shard for entry in entries}
        there = {name for name in shards if (self.path / name).is_file()}
        entries = [entry for entry in entries if entry.shard in there]
        if resume and digest == self._plan_digest:
            return {entry.tensor: entry for entry in entries if accepts(entry)}
        if not entries or self._force:
            return {}
        if resume:
            what = "an interrupted run with another recipe, input, option or version left finished tensors there"
            hint = "Repeat that run's settings, or discard its work with --force."
        else:
            what = f"an interrupted run left {len(entries)} finished tensors there"
            hint = "Continue it with --resume, or discard its work with --force."
        raise RequestError(what, where=str(self._home), hint=hint)

    def _clear(self) -> None:
        """Remove everything but what is kept."""
        with preparing(self.path):
            if self.path.is_symlink() or not self.path.is_dir():
                self.path.unlink(missing_ok=True)
                return
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name not in self._kept:
                    entry.unlink()

    def _remove(self) -> None:
        """Remove what is ours, the journal last, which says so; what cannot be removed is left to the next run."""
        for name in (_MODEL, _REPLACED):
            shutil.rmtree(self._home / name, ignore_errors=True)
        with suppress(OSError):
            if not any(os.path.lexists(self._home / name) for name in (_MODEL, _REPLACED)):
                for name in ("uploads.jsonl", "uploads.new"):
                    (self._home / name).unlink(missing_ok=True)
                (self._home / journals.NAME).unlink(missing_ok=True)
                (self._home / journals.FRESH).unlink(missing_ok=True)
                self._home.rmdir()
        if self._home.parent == self.target.parent:
            return
        with suppress(OSError):
            self._home.parent.rmdir()  # if it was the last share

    def _remove_parents(self) -> None:
        """Remove the directories above the target that were not there, as long as nothing else is in them."""
        with suppress(OSError):
            for place in self._made:
                place.rmdir()

    def _start_sync(self, writer: ShardWriter) -> None:
        """Write a finished shard to disk, or upload it, while the merge goes on."""
        if self._upload is None:
            self._syncs.append(self._syncer.submit(_sync_and_close, writer))
        else:
            record = FileRecord(writer.digest.hexdigest(), writer.shard.size)
            self._upload.take(self.path / writer.shard.name, record, writer.close)

    def _publish(self, manifest: Manifest) -> None:
        """Give the complete directory its final name, here or in an object store."""
        if self._upload is not None:
            sent = {name for name in manifest.files if self._upload.record(name) is not None}
            data = manifest.to_json()
            own = {manifests.NAME: FileRecord(new_digest(BLAKE3, data).hexdigest(), len(data))}
            self._upload.publish(self.path, {n: r for n, r in manifest.files.items() if n not in sent} | own)
            return
        publish(self.path, self.target, self._force, self._home / _REPLACED)
        with finishing(self.target):
            sync_directory(self.target)
            sync_directory(self.target.parent)

    def _free(self, name: str) -> Path:
        """Where a side file of this name goes; ValueError if the name is taken."""
        inside(self.path, name, nested=True)
        if name in self._writers or name in self._files or name == manifests.NAME:
            raise ValueError(f"{name} is not free for a side file")
        path = self.path / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _manifest(self, shards: Sequence[ShardPlan]) -> Manifest:
        files = dict(self._files)
        tensors: dict[str, TensorRecord] = {}
        for shard in shards:
            sent = self._upload.record(shard.name) if self._upload else None
            files[shard.name] = sent or FileRecord(self._writers[shard.name].digest.hexdigest(), shard.size)
            for tensor in shard.tensors:
                digest = self._journal.entries[tensor.name].xxh3
                tensors[tensor.name] = TensorRecord(shard.name, tensor.dtype.code, tensor.shape, digest)
        return Manifest(__version__, files, tensors)


def uploading(target: Path) -> Upload | None:
    """The upload that ``target`` stands for; None for one on this machine, for which nothing more is imported."""
    module = sys.modules.get("rlmerge.checkpoint.remote.upload")
    return module.upload_at(target) if module else None


def _sync_and_close(writer: ShardWriter) -> None:
    writer.sync()
    writer.close()
