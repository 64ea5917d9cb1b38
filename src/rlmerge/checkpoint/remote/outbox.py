"""Objects written to S3, Google Cloud Storage and Azure: in parts, tried again, and never half there.

An object appears under its name when all its parts are there. Whatever fails, is refused or is stopped aborts the parts
that were sent; only a process that is killed leaves some behind, which the store's own lifecycle rules remove.
Small objects can also be written on condition that nobody else has: of two machines that try, one is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rlmerge.checkpoint.hashing import BLAKE3, new_digest
from rlmerge.checkpoint.manifest import FileRecord
from rlmerge.checkpoint.paths import open_regular
from rlmerge.checkpoint.remote import store
from rlmerge.checkpoint.remote.file import RemoteFile
from rlmerge.checkpoint.remote.object_store import MAX_OBJECTS, ObjectStore, stamp_of
from rlmerge.checkpoint.remote.refusals import brief, network_hint, refusal
from rlmerge.checkpoint.remote.store import ATTEMPTS, Changed, ObjectStamp, Transient, retried
from rlmerge.errors import CheckpointError, RlmergeError, RunError
from rlmerge.frozen import frozen

Value = TypeVar("Value")

Edition = dict[str, str]
"""What a store calls the object that it holds now: its etag, and its version where there are such."""

SMALLEST_ROOM = 16 * 2**20
LARGEST_ROOM = 128 * 2**20
"""Bytes of memory that uploads take: an eighth of the budget within these bounds."""

COPIED = 5 * 2**30
"""Bytes of the largest object that S3 copies by itself."""

_SMALLEST_PART = 5 * 2**20
_PART = 8 * 2**20
_MOST_PARTS = 9_000
_LANES = 2
_TRIES = 3
"""Times that a whole object is sent, when a part of it has failed as often as a request may."""

_CREDENTIALS = "Give credentials that may write there, the way that the store's own tools read them."
_TELLING = ("s3", "az")
"""Schemes of stores whose answer to a write has the etag that the object then has."""


def room_of(memory: int) -> int:
    """Bytes of a memory budget that uploads take."""
    return min(LARGEST_ROOM, max(SMALLEST_ROOM, memory // 8))


@frozen(slots=True)
class Parts:
    """How uploads share ``room`` bytes of memory: so many ``lanes``, objects under way at a time."""

    room: int = LARGEST_ROOM // 2

    @property
    def lanes(self) -> int:
        """Objects under way at a time."""
        return _LANES if self.room >= _LANES * 4 * _PART else 1

    def of(self, size: int) -> tuple[int, int]:
        """Bytes of a part of an object of ``size`` bytes, and how many of them are under way at a time."""
        own = self.room // self.lanes
        part = max(_PART if own >= 4 * _PART else _SMALLEST_PART, -(-size // _MOST_PARTS))
        return part, max(1, own // part - 2)


@frozen(slots=True)
class Small:
    """A small object: its content, the edition that a condition names, and when the store says it was written."""

    data: bytes
    edition: Edition
    written: datetime


class Taken(Exception):
    """The object is not, or no longer, what a condition asked for."""


class Stopped(Exception):
    """The run ends, and what is under way with it."""


class Outbox(ObjectStore):
    """Folders of a bucket that are written; names are relative to the address.

    ``parts`` says how much memory uploads take. Every failure is a RunError that says how to go on, with ``Denied`` as
    its cause if no other try would help. ``failure`` is raised by whatever is to be sent, once it is set.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.parts = Parts()
        backoff = {
            "init_backoff": timedelta(seconds=store.FIRST_DELAY),
            "max_backoff": timedelta(seconds=store.LONGEST_DELAY),
            "base": 2,
        }
        retries = {"max_retries": ATTEMPTS - 1, "backoff": backoff, "retry_timeout": timedelta(minutes=10)}
        self._sender = self._connect(self._stores, retries)
        self.stopped = threading.Event()
        self.failure: RlmergeError | None = None

    def below(self, folder: str) -> dict[str, ObjectStamp]:
        """The objects in ``folder`` by their names in it; RequestError if it cannot be listed.

        An empty object that stands for the folder itself, as consoles make one, is none.
        """

        def listed() -> list[Any]:
            found: list[Any] = []
            for batch in self._library.list(self._store, prefix=folder):
                found += batch
                if len(found) > MAX_OBJECTS:
                    what = f"holds more than {MAX_OBJECTS:,} objects"
                    raise CheckpointError(what, where=f"{self.address}/{folder}", hint="Name a folder for one model.")
            return found

        entries = retried(lambda: self._ask(listed, folder), f"{self.address}/{folder}")
        return {e["path"].removeprefix(f"{folder}/"): stamp_of(e) for e in entries if e["path"] != folder or e["size"]}

    def now(self, names: Iterable[str]) -> dict[str, ObjectStamp | None]:
        """The stamp of each object as it is, None where there is none; CheckpointError if the store does not answer."""
        return self.together(lambda name: retried(lambda: self.stat(name), f"{self.address}/{name}"), names)

    def read_small(self, name: str, limit: int) -> Small | None:
        """A small object now; None if there is none, or it is larger than ``limit`` bytes (``data`` is then empty)."""

        def get() -> Small:
            answer = self._library.get(self._store, name)
            meta = answer.meta
            edition = {key: meta[key] for key in ("e_tag", "version") if meta.get(key) is not None}
            data = bytes(answer.bytes()) if meta["size"] <= limit else b""
            return Small(data, edition, meta["last_modified"])

        try:
            return retried(lambda: self._ask(get, name), f"{self.address}/{name}")
        except FileNotFoundError:
            return None

    def write_if(
        self, name: str, data: bytes, edition: dict[str, str] | None, *, patient: bool = True
    ) -> dict[str, str]:
        """Write a small object if it is this ``edition``, or there is none (None); its edition then.

        Taken if it is another; a store without conditions replaces whatever there is. Not ``patient`` tries once.
        """
        sender = self._sender if patient else self._store

        def put() -> Any:
            mode = edition if edition is not None else "create"
            try:
                return self._library.put(sender, name, data, mode=mode, use_multipart=False)
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                raise Taken from None
            except self._errors.NotSupportedError:
                return self._library.put(sender, name, data, use_multipart=False)

        found = self._told(put, name) if patient else put()
        return {key: found[key] for key in ("e_tag", "version") if found[key] is not None}

    def upload(self, path: Path, name: str, record: FileRecord) -> ObjectStamp:
        """Write a file as an object, replacing what there is; its stamp, as the store tells it.

        RunError also if the file is no longer the one whose BLAKE3 the record holds: then no object appears.
        """

        def pieces() -> Iterator[bytes]:
            digest = new_digest(BLAKE3)
            with open(open_regular(path), "rb", buffering=0) as handle:  # noqa: PTH123 - of a descriptor
                while piece := handle.read(self.parts.of(record.bytes)[0]):
                    digest.update(piece)
                    self._go_on()
                    yield piece
            if digest.hexdigest() != record.digest:
                what = "is not what was written: it changed before it was uploaded"
                raise RunError(what, where=str(path), hint="Check the disk, then run again with --resume.")

        return self._send(name, pieces, record.bytes)

    def copy(self, source: str, name: str, stamp: ObjectStamp) -> ObjectStamp:
        """Copy an object within the store; through this machine where the store does not do it."""
        if stamp.size <= COPIED:
            try:
                self._told(lambda: self._library.copy(self._sender, source, name), name)
                return self._confirmed(name, stamp.size)
            except RunError as error:
                if isinstance(error.__cause__, Denied):
                    raise
        part = self.parts.of(stamp.size)[0]
        # Requests cannot be made by the thread that sends: it is the library's own while pieces are asked for.
        file = RemoteFile(Path(source), self, source, stamp)

        def pieces() -> Iterator[bytes]:
            for start in range(0, stamp.size, part):
                self._go_on()
                file.prefetch(start, min(stamp.size, start + 2 * part))
                yield file.read(start, min(stamp.size, start + part)).tobytes()

        try:
            return self._send(name, pieces, stamp.size)
        finally:
            file.close()

    def together(self, action: Callable[[str], Value], names: Iterable[str]) -> dict[str, Value]:
        """What ``action`` gives for each of several small objects, some at a time."""
        wanted = list(names)
        with ThreadPoolExecutor(8, "rlmerge-upload") as pool:
            return dict(zip(wanted, pool.map(action, wanted), strict=True))

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are no failure."""

        def remove() -> None:
            try:
                self._library.delete(self._sender, list(names))
            except FileNotFoundError:
                for name in names:
                    self._remove(name)

        if names:
            self._told(remove, names[0])

    def _remove(self, name: str) -> None:
        try:
            self._library.delete(self._sender, name)
        except FileNotFoundError:
            return

    def _send(self, name: str, content: Callable[[], Any], size: int) -> ObjectStamp:
        part, together = self.parts.of(size)

        def put() -> Any:
            return self._library.put(
                self._sender,
                name,
                content(),
                use_multipart=size > part,
                chunk_size=part,
                max_concurrency=together,
            )

        tag = self._told(put, name)["e_tag"]
        if self.address.startswith(_TELLING) and tag and not tag.startswith("W/"):
            return ObjectStamp(size, tag if tag.startswith('"') else f'"{tag}"')
        return self._confirmed(name, size)

    def _confirmed(self, name: str, size: int) -> ObjectStamp:
        """The stamp of an object that was written, as the store has it now."""
        try:
            found = retried(lambda: self.stat(name), f"{self.address}/{name}")
        except CheckpointError as error:
            raise RunError(error.what, where=error.where, hint=again(self.address)) from error
        if found is None or found.size != size:
            held = "is not there" if found is None else f"is {found.size:,} bytes long there, not {size:,}"
            raise RunError(f"was uploaded, but {held}", where=f"{self.address}/{name}", hint=again(self.address))
        return found

    def _told(self, request: Callable[[], Value], name: str) -> Value:
        """The answer to a request that writes, tried again as a whole; RunError if it fails for good."""
        where, errors = f"{self.address}/{name}", self._errors
        for attempt in range(1, _TRIES + 1):
            self._go_on()
            try:
                return request()
            except (RlmergeError, Stopped, Taken):
                raise
            except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
                found = refusal(error)
                what = f"may not be written: {found.what if found else 'the store denies access'}"
                raise RunError(what, where=where, hint=_CREDENTIALS) from Denied(brief(error))
            except FileNotFoundError as error:
                what = "cannot be written: there is no such bucket or object"
                raise RunError(what, where=where, hint="Create the bucket first.") from Denied(brief(error))
            except (errors.BaseError, OSError, ValueError, Transient, Changed) as error:
                if (found := refusal(error)) is not None:
                    raise RunError(f"may not be written: {found.what}", where=where, hint=found.hint) from Denied()
                if attempt == _TRIES:
                    raise RunError(
                        f"cannot be written ({brief(error)})", where=where, hint=again(self.address)
                    ) from error
        raise AssertionError("the last attempt returns or raises")

    def _go_on(self) -> None:
        if self.stopped.is_set():
            raise Stopped
        if self.failure is not None:
            raise self.failure


ALONE = "Let them end, then run again with --resume to continue."


def again(address: str) -> str:
    """What to do when the store of ``address`` fails."""
    return network_hint(address, " with --resume to continue")


class Denied(Exception):
    """No other try would help."""
