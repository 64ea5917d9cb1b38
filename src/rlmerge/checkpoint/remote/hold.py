"""One writer at a time for a folder of an object store: the marker in ``.<folder>.partial`` says who it is.

The marker is created, renewed every minute and taken over on condition that nobody else has written it meanwhile
(``If-None-Match``, ``If-Match``), so that of two machines one is refused. A store that knows no conditions leaves a
moment in which both may begin; the one that has lost finds it out at its next renewal, or before the index at the
latest. Times are those of the store: clocks of machines differ.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlmerge import __version__
from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.failures import preparing
from rlmerge.checkpoint.remote.outbox import ALONE, Denied, Edition, Outbox, Small, Taken
from rlmerge.errors import RequestError, RlmergeError, RunError
from rlmerge.frozen import frozen
from rlmerge.text import shortened

MARKER = "upload.json"
"""The object in ``.<folder>.partial`` that says that a model is on its way, and whose it is."""

RENEWED = 60.0
"""Seconds between two signs of life."""

STALE = 600.0
"""Seconds after its last sign of life at which a writer counts as dead."""

_LARGEST = 2**16
_TRIES = 4


@frozen(slots=True)
class Holder:
    """Who holds a folder: the ``id`` of a cache directory, empty once it has been let go of, and names to show."""

    id: str
    who: str
    began: str


class Hold:
    """The claim of one run on ``folder``, which is told as ``address``; ``cache`` is the folder of all uploads here.

    The runs of one cache directory know each other by its number. They exclude each other by locks of files, so that
    a marker with our own number is one that a run left which was killed.
    """

    def __init__(self, outbox: Outbox, folder: str, cache: Path, plan: str) -> None:
        self.address = f"{outbox.address}/{folder}"
        self._outbox = outbox
        self._staging = f".{folder}.partial"
        self._name = f"{self._staging}/{MARKER}"
        self._id = _number_of(cache)
        self._content = {"rlmerge": __version__, "plan": plan, "folder": folder}
        self._began = datetime.now(UTC).isoformat(" ", "seconds")
        self._beats = 0
        self._edition: Edition = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Claim the folder, and show signs of life from now on.

        RequestError if another run has it, or the store does not let us write.
        """
        try:
            for _ in range(_TRIES):
                found = self._outbox.read_small(self._name, _LARGEST)
                if found is not None:
                    self._check_free(found)
                with suppress(Taken):
                    self._edition = self._write(None if found is None else found.edition)
                    break
                if self._is_ours():  # The answer to a try that succeeded was lost.
                    break
            if not self._is_ours():
                found = self._outbox.read_small(self._name, _LARGEST)
                raise self._refused(None if found is None else holder_of(found))
        except RunError as error:
            if isinstance(error.__cause__, Denied):
                raise RequestError(error.what, where=error.where, hint=error.hint) from None
            raise
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew, name="rlmerge-hold", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """RunError if another run has taken the folder over."""
        if not self._is_ours():
            found = self._outbox.read_small(self._name, _LARGEST)
            raise self._lost(None if found is None else holder_of(found))

    def end(self, *, let_go: bool) -> None:
        """Show no more signs of life; with ``let_go`` another run may have the folder at once, if the store listens."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            # What cannot be let go of is stale after a while.
            with suppress(Exception):
                if let_go and self._outbox.failure is None:
                    self._write(self._edition or None, patient=False, let_go=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            # A store that does not answer now may do so the next time.
            with suppress(Exception):
                with suppress(Taken):
                    self._edition = self._write(self._edition or None, patient=False)
                if not self._is_ours():
                    found = self._outbox.read_small(self._name, _LARGEST)
                    self._outbox.failure = self._lost(None if found is None else holder_of(found))
                    return

    def _write(self, edition: Edition | None, *, patient: bool = True, let_go: bool = False) -> Edition:
        self._beats += 1
        owner = {"id": "" if let_go else self._id, "who": _who(), "began": self._began, "sign": self._beats}
        data = json.dumps({**self._content, "owner": owner}).encode()
        return self._outbox.write_if(self._name, data, edition, patient=patient)

    def _is_ours(self) -> bool:
        found = self._outbox.read_small(self._name, _LARGEST)
        if found is None:
            return False
        holder = holder_of(found)
        is_ours = holder is not None and (holder.id, holder.began, holder.who) == (self._id, self._began, _who())
        if is_ours:
            self._edition = found.edition
        return is_ours

    def _check_free(self, found: Small) -> None:
        """RequestError if a marker is that of another run which may be alive."""
        holder = holder_of(found)
        if holder is not None and holder.id in ("", self._id):
            return
        if (self._now() - found.written).total_seconds() <= STALE:
            raise self._refused(holder)

    def _now(self) -> datetime:
        """The time that the store has."""
        name = f"{self._staging}/clock-{secrets.token_hex(8)}"
        try:
            self._outbox.write_if(name, b"", None)
            found = self._outbox.read_small(name, _LARGEST)
        finally:
            with suppress(RlmergeError):
                self._outbox.delete([name])
        return found.written if found is not None else datetime.now(UTC)

    def _refused(self, holder: Holder | None) -> RequestError:
        place = f"{self._outbox.address}/{self._name}"
        hint = (
            f"Wait for it to end. One that was killed counts as dead {STALE / 60:g} minutes after its last sign of "
            f"life, or at once if you remove {place}."
        )
        return RequestError(f"another run is writing there: {_shown(holder)}", where=self.address, hint=hint)

    def _lost(self, holder: Holder | None) -> RunError:
        return RunError(f"another run has taken over: {_shown(holder)}", where=self.address, hint=ALONE)


def holder_of(found: Small) -> Holder | None:
    """Who wrote a marker; None where it does not say."""
    try:
        content = strictjson.parse(found.data, MARKER)
    except RlmergeError:
        return None
    owner: Any = content.get("owner") if isinstance(content, dict) else None
    if not isinstance(owner, dict) or not all(isinstance(owner.get(key), str) for key in ("id", "who", "began")):
        return None
    return Holder(owner["id"], owner["who"], owner["began"])


def _shown(holder: Holder | None) -> str:
    return "it does not say whose" if holder is None else f"{shortened(holder.who)}, since {shortened(holder.began)}"


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def _number_of(cache: Path) -> str:
    """The number of a cache directory, made once; RequestError if it cannot be written."""
    path = cache / "number"
    with preparing(path):
        cache.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = cache / f"number.{os.getpid()}"
            fresh.write_text(secrets.token_hex(16), "ascii")
            with suppress(FileExistsError):
                path.hardlink_to(fresh)
            fresh.unlink()
        return path.read_bytes()[:64].decode("ascii", "replace")
