"""An output directory in an object store: it grows here shard by shard, and each shard goes up as it is finished.

A local directory in the cache stands for the address, with the journal of the run. A finished shard is uploaded, the
store's stamp of it recorded in ``uploads.jsonl``, and its place here emptied; at most a few shards are here at a time.
Into a folder that holds nothing, shards go at once under their final names, where without an index they are no model.
Side files follow, then the index (or the one ``model.safetensors``), and the manifest last. Where a model is to be
replaced, everything goes to ``.<folder>.partial`` beside it first; at the end the old model is removed and the new one
copied into its place within the store, the index and the manifest last again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import xxhash

from rlmerge.addresses import check_output, stand_in
from rlmerge.checkpoint import journal as journals
from rlmerge.checkpoint.directory import SINGLE
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.hashing import ShardHash
from rlmerge.checkpoint.journal import Journal, JournalEntry
from rlmerge.checkpoint.layout import ShardPlan
from rlmerge.checkpoint.manifest import FileRecord
from rlmerge.checkpoint.recheck import KeptShard
from rlmerge.checkpoint.remote.file import RemoteFile
from rlmerge.checkpoint.remote.folder import LAST, Folder, is_model, is_written
from rlmerge.checkpoint.remote.hold import Hold
from rlmerge.checkpoint.remote.mirror import read_here, read_remotely
from rlmerge.checkpoint.remote.outbox import Outbox, Parts, again, room_of
from rlmerge.checkpoint.remote.sent import Sent, read_sent
from rlmerge.checkpoint.remote.store import ObjectStamp
from rlmerge.errors import RequestError, RunError

_uploads: dict[Path, Upload] = {}


def upload_to(address: str) -> Path:
    """The local path that stands for an output at ``address``; RequestError if nothing can be written there."""
    try:
        address = check_output(address)
    except ValueError as error:
        raise RequestError(str(error)) from None
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmerge" / "uploads"
    folder = root / xxhash.xxh3_64_hexdigest(address.encode())
    path = Path(os.path.abspath(folder)).resolve() / address.rpartition("/")[2]  # noqa: PTH100 - it may not exist
    if path not in _uploads:
        _uploads[path] = Upload(address, path)
        stand_in(str(path), address)
    return path


def upload_at(path: Path) -> Upload | None:
    """The upload that a local path stands for; None for one that is an output itself."""
    return _uploads.get(path)


class Upload:
    """The way of one output directory to its ``address``; ``path`` stands for it here.

    Everything raises RunError when the store fails, and what was sent stays for a resumed run.
    """

    def __init__(self, address: str, path: Path) -> None:
        self.address = address
        self.path = path
        self.staged = False
        self._folder = Folder(address)
        self._hold: Hold | None = None
        self._stamps: dict[str, ObjectStamp] = {}
        self._records: dict[str, FileRecord] = {}
        self._old: set[str] = set()
        self._places: dict[str, Path] = {}
        self._sent: Sent | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._futures: list[Future[None]] = []
        self._slots = threading.Semaphore(1)
        self._lock = threading.Lock()

    @property
    def outbox(self) -> Outbox:
        """What writes to the store."""
        return self._folder.outbox

    def use(self, memory: int) -> int:
        """Take a part of a budget of ``memory`` bytes; how many that are."""
        room = room_of(memory)
        self.outbox.parts = Parts(room)
        return room

    @property
    def most_shards(self) -> int:
        """Shards that are here at a time at the most: those under way, one that waits, and one being merged."""
        return self.outbox.parts.lanes + 2

    def check(self, home: Path, force: bool) -> None:
        """RequestError if the target may not become the output: it holds something, and is not to be replaced.

        What an interrupted run whose directory is ``home`` has sent is no obstacle.
        """
        self._folder.check(read_sent(home), force)

    def begin(
        self, home: Path, plan_digest: str, claims: Mapping[str, JournalEntry], shards: Sequence[ShardPlan]
    ) -> dict[str, KeptShard]:
        """Start, or go on where a run of the same plan stopped; by name the shards that are in the store already.

        Of an earlier run counts what ``claims`` holds every tensor of and the store still has the same edition of.
        RequestError if the store does not let us write.
        """
        outbox, folder = self.outbox, self._folder
        outbox.stopped.clear()
        outbox.failure = None
        self._futures, self._places = [], {}
        for shard in shards:
            read_here(home / "model" / shard.name)
        earlier = read_sent(home)
        folder.check_staging()
        self._hold = Hold(outbox, folder.name, home.parent.parent, plan_digest)
        self._hold.take()
        goes_on = bool(claims) and earlier is not None and earlier.is_of(self.address, plan_digest)
        there = folder.held()
        self.staged = earlier.staged if goes_on and earlier else is_model(there)
        if earlier is not None and not goes_on:
            folder.clear_staging(but_marker=True)
        kept = self._still_there(earlier, shards, claims) if goes_on and earlier else {}
        self._records = {name: earlier.files[name] for name in kept} if earlier else {}
        self._stamps = {name: earlier.stamps[name] for name in kept} if earlier else {}
        if not self.staged:
            # What is written again must not be read as a model meanwhile.
            folder.remove(set(there) & set(LAST))
        leftovers = {name for name in there if is_written(name) or (earlier is not None and name in earlier.stamps)}
        self._old = leftovers - set(self._stamps) - {shard.name for shard in shards if not self.staged}
        if not (home / journals.NAME).exists():
            # The journal comes first: it says that what is here is ours.
            Journal(home, plan_digest).close()
        self._sent = Sent(home, self.address, plan_digest, self.staged, self._records, self._stamps)
        (home / "model").mkdir(exist_ok=True)
        for name in kept:
            self._stand_in(home / "model" / name, name)
        lanes = outbox.parts.lanes
        self._slots = threading.Semaphore(lanes)
        self._pool = ThreadPoolExecutor(lanes, "rlmerge-upload")
        return kept

    def record(self, name: str) -> FileRecord | None:
        """Digest and size of a shard that is in the store."""
        return self._records.get(name)

    def take(self, path: Path, record: FileRecord, close: Callable[[], None]) -> None:
        """Send a finished shard, and empty its file; waits while as many as may are under way.

        The one file of a model waits for ``publish``: it alone would be taken for a model.
        """
        name = path.name
        if name == SINGLE or name in self._records:
            close()
            return
        assert self._pool is not None
        while not self._slots.acquire(timeout=0.2):
            self._raise_failures()
        self._raise_failures()
        self._futures.append(self._pool.submit(self._ship, path, record, close))

    def wait(self) -> None:
        """Wait until every shard that was taken is in the store."""
        for future in self._futures:
            future.result()

    def publish(self, folder: Path, files: Mapping[str, FileRecord]) -> None:
        """Send ``files`` of ``folder``, which are all but the shards that were taken, and make a model of everything.

        RunError, and no model there, if something else has appeared at the target, or an object changed meanwhile.
        """
        try:
            self._publish(folder, files)
        except RequestError as error:
            raise RunError(error.what, where=error.where, hint=again(self.address)) from error
        # Should we be killed from now on, nothing must look like finished tensors of a run that can go on.
        for path in (*self._places.values(), *(folder / name for name in files)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        assert self._hold is not None
        self._hold.end(let_go=False)
        with suppress(RunError, RequestError):
            self._folder.clear_staging()

    def _publish(self, folder: Path, files: Mapping[str, FileRecord]) -> None:
        outbox = self.outbox
        last = [name for name in LAST if name in files]
        first = [name for name in files if name not in last]

        def send(name: str) -> ObjectStamp:
            return outbox.upload(folder / name, self._folder.place(name, self.staged), files[name])

        self._stamps |= outbox.together(send, first)
        if self.staged:
            self._stamps |= {name: send(name) for name in last}
        assert self._hold is not None
        self._hold.check()
        self._folder.check_unchanged(self._stamps, self.staged)
        if self.staged:
            self._folder.replace(self._stamps)
        else:
            self._folder.complete(folder, files, set(self._stamps), self._old)

    def discard(self) -> None:
        """Remove what was sent, as far as the store lets us, and unless another run has taken over."""
        self.outbox.stopped.clear()
        with suppress(RunError, RequestError):
            if self._hold is not None:
                self._hold.take()
                if not self.staged:
                    self._folder.remove(self._stamps)
                self._hold.end(let_go=False)
                self._folder.clear_staging()

    def close(self) -> None:
        """Abort what is under way, and let go of everything."""
        self.outbox.stopped.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        for path in self._places.values():
            read_here(path)
        if self._hold is not None:
            self._hold.end(let_go=True)
        if self._sent is not None:
            self._sent.close()
            self._sent = None

    def _ship(self, path: Path, record: FileRecord, close: Callable[[], None]) -> None:
        try:
            stamp = self.outbox.upload(path, self._folder.place(path.name, self.staged), record)
            with self._lock:
                assert self._sent is not None
                self._sent.add(path.name, record, stamp)
                self._records[path.name], self._stamps[path.name] = record, stamp
            close()
            self._stand_in(path, path.name)
        finally:
            close()
            self._slots.release()

    def _stand_in(self, path: Path, name: str) -> None:
        """Have the shard read from the store from now on, and give back its room here."""
        read_remotely(path, RemoteFile(path, self.outbox, self._folder.place(name, self.staged), self._stamps[name]))
        self._places[name] = path
        with writing(path):
            path.write_bytes(b"")

    def _raise_failures(self) -> None:
        for future in self._futures:
            if future.done():
                future.result()

    def _still_there(
        self, earlier: Sent, shards: Sequence[ShardPlan], claims: Mapping[str, JournalEntry]
    ) -> dict[str, KeptShard]:
        """What an earlier run sent and the store still holds."""
        planned = {shard.name: shard for shard in shards}
        names = [name for name in earlier.stamps if name in planned]
        found = self.outbox.now(self._folder.place(name, self.staged) for name in names)
        kept: dict[str, KeptShard] = {}
        for name in names:
            shard = planned[name]
            tensors = tuple(tensor.name for tensor in shard.tensors)
            claimed = all(tensor in claims and claims[tensor].shard == name for tensor in tensors)
            same = (
                found[self._folder.place(name, self.staged)] == earlier.stamps[name]
                and earlier.files[name].bytes == shard.size
            )
            if claimed and same:
                kept[name] = KeptShard(shard.header, tensors, ShardHash(shard.header))
        return kept
