"""A remote model directory as a local one: its small files fetched, its weights stood for by empty files.

Whatever reads model directories sees names and small files as usual; only who opens a weights file gets one that reads
ranges over the network (``opened_remotely``). The mirror is temporary and goes with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from rlmerge.addresses import check_address, stand_in
from rlmerge.checkpoint.disguise import HEAD
from rlmerge.checkpoint.hub import PATTERNS
from rlmerge.checkpoint.remote.file import RemoteFile
from rlmerge.checkpoint.remote.store import Changed, ObjectStamp, Store, retried
from rlmerge.errors import CheckpointError, RunError
from rlmerge.frozen import frozen

MAX_SMALL = 256 * 2**20
"""Bytes of the largest file that is fetched whole."""

MAX_FETCHED = 2**30
"""Bytes of all files of one model that are fetched whole."""

WEIGHTS = ".safetensors"

LONGEST = 2**20
"""Bytes of the longest header that is fetched together with those of other files."""

_MODELS_AT_A_TIME = 8
_AT_A_TIME = 8
_HEADERS_AT_A_TIME = 16
_remote: dict[Path, RemoteFile] = {}
_underway: ContextVar[dict[tuple[str, str | None], Future[Mirror]] | None] = ContextVar("underway", default=None)


@frozen(slots=True)
class Mirror:
    """``root`` stands for ``address``; ``commit`` is that of the Hub."""

    root: Path
    address: str
    commit: str | None


def mirrored(address: str, revision: str | None) -> Mirror:
    """List a remote model and fetch its small files.

    CheckpointError if the address is none, holds credentials, cannot be read, or holds no safetensors files.
    """
    underway = (_underway.get() or {}).pop((address, revision), None)
    return _mirrored(address, revision) if underway is None else underway.result()


@contextmanager
def mirrored_together(models: Iterable[tuple[str, str | None]]) -> Generator[None, None, None]:
    """Within it the first ``mirrored`` of each of these addresses and revisions takes one that was begun on entry.

    Listing a model takes several trips over the network; so those of many models are made at a time.
    """
    _home()
    with ThreadPoolExecutor(_MODELS_AT_A_TIME, "rlmerge-models") as pool:
        token = _underway.set({model: pool.submit(_mirrored, *model) for model in dict.fromkeys(models)})
        try:
            yield
        finally:
            _underway.reset(token)


def _mirrored(address: str, revision: str | None) -> Mirror:
    try:
        address = check_address(address)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    store = store_of(address, revision)
    files = retried(store.list, store.address)
    if not any(name.endswith(WEIGHTS) and "/" not in name for name in files):
        held = f"holds {len(files)} files, but no safetensors weights" if files else "holds nothing that can be read"
        hint = "Name the folder of one model; weights of other formats must be copied here and converted first."
        raise CheckpointError(held, where=store.address, hint=hint)
    root = _root(store.address)
    _fetch(store, root, {name: stamp for name, stamp in files.items() if is_small(name)})
    weights: list[RemoteFile] = []
    for name in files:
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if name.endswith(WEIGHTS):
            weights.append(RemoteFile(path, store, name, files[name]))
            read_remotely(path, weights[-1])
    _fetch_headers([file for file in weights if "/" not in file.name])
    stand_in(str(root), store.address)
    return Mirror(root, store.address, getattr(store, "commit", None))


def opened_remotely(path: Path) -> RemoteFile | None:
    """The remote file that ``path`` stands for; None for a file that is here."""
    return _remote.get(path)


def read_remotely(path: Path, file: RemoteFile) -> None:
    """From now on whoever opens the local ``path`` reads ``file``."""
    _remote[path] = file


def read_here(path: Path) -> None:
    """``path`` stands for nothing any more."""
    _remote.pop(path, None)


def store_of(address: str, revision: str | None = None) -> Store:
    """The store behind an address that was checked; CheckpointError if it cannot be opened."""
    scheme = address.partition("://")[0].lower()
    if scheme == "hf":
        from rlmerge.checkpoint.remote.hub_store import HubStore

        return HubStore(address, revision)
    if revision is not None:
        raise CheckpointError("has no revisions; only models of the Hub do", where=address)
    from rlmerge.checkpoint.remote.object_store import ObjectStore, WebServer

    return WebServer(address) if scheme in ("http", "https") else ObjectStore(address)


@cache
def _home() -> tempfile.TemporaryDirectory[str]:
    """Where this process keeps its mirrors; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="rlmerge-remote-")


def _root(address: str) -> Path:
    """A new directory that ends like the address."""
    number = Path(tempfile.mkdtemp(dir=_home().name)).resolve()
    scheme, _, rest = address.partition("://")
    root = number / scheme / rest.partition("@")[0]
    root.mkdir(parents=True)
    return root


def is_small(name: str) -> bool:
    """Whether a file belongs beside weights; those of folders are the templates and parts that models may have."""
    folder, _, file = name.rpartition("/")
    return not file.endswith(WEIGHTS) and "/" not in folder and any(fnmatchcase(file, each) for each in PATTERNS)


def _fetch(store: Store, root: Path, files: Mapping[str, ObjectStamp]) -> None:
    for name, stamp in files.items():
        if stamp.size > MAX_SMALL:
            what = f"is {stamp.size:,} bytes long; at most {MAX_SMALL:,} of a file beside weights are fetched"
            raise CheckpointError(what, where=f"{store.address}/{name}")
    if (total := sum(stamp.size for stamp in files.values())) > MAX_FETCHED:
        what = f"its files beside the weights take {total:,} bytes; at most {MAX_FETCHED:,} are fetched"
        raise CheckpointError(what, where=store.address, hint="Name the folder that holds one model.")

    def fetch(name: str) -> None:
        path, stamp = root / name, files[name]
        where = f"{store.address}/{name}"
        try:
            data = retried(lambda: store.get(name, stamp, 0, stamp.size), where).tobytes() if stamp.size else b""
        except Changed:
            hint = "Let its writer finish, then run again."
            raise RunError("changed while it was fetched", where=where, hint=hint) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    with ThreadPoolExecutor(_AT_A_TIME, "rlmerge-mirror") as pool:
        list(pool.map(fetch, files))


def _fetch_headers(files: Sequence[RemoteFile]) -> None:
    """Fetch the headers of many shards at a time: one after the other, each would cost two round trips."""

    def fetch(file: RemoteFile) -> None:
        # What fails now is asked for again, patiently, when it is needed.
        with suppress(Exception):
            stamp = file.stamp
            assert isinstance(stamp, ObjectStamp)
            head = file.store.get(file.name, stamp, 0, min(HEAD, stamp.size)).tobytes()
            end = 8 + int.from_bytes(head[:8], "little")
            if len(head) < end <= min(LONGEST, stamp.size):
                head += file.store.get(file.name, stamp, len(head), end).tobytes()
            file.beginning = head

    with ThreadPoolExecutor(_HEADERS_AT_A_TIME, "rlmerge-headers") as pool:
        list(pool.map(fetch, files))
