"""Models of the Hugging Face Hub read where they are, through huggingface_hub (extra ``hub``): `hf://org/name@rev`.

The revision is resolved to its commit once, so that a push in the middle of a run changes nothing. A file's address on
the content servers is asked for once and again when it has expired; ranges are then read from there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rlmerge.checkpoint.hub import parse_id, refused_by_hub
from rlmerge.checkpoint.paths import is_plain_name
from rlmerge.checkpoint.remote.refusals import brief
from rlmerge.checkpoint.remote.store import Changed, ObjectStamp, Transient
from rlmerge.errors import CheckpointError
from rlmerge.extras import require

_TIMEOUT = 60.0
_CHUNK = 2**18
_EXPIRED = (401, 403, 410)
_LATER = (408, 425, 429)


class HubStore:
    """One commit of a repository; ``commit`` is its hash."""

    def __init__(self, address: str, revision: str | None) -> None:
        found = parse_id(address.removeprefix("hf://"))
        if found is None or found[0].count("/") > 1:
            raise CheckpointError("is no address of a Hub repository", where=address, hint="Write hf://org/name@rev.")
        self.repository, self._asked = found[0], revision or found[1]
        self.address = f"hf://{self.repository}" + (f"@{self._asked}" if self._asked else "")
        self.commit = ""
        self._hub: Any = require("huggingface_hub")
        self._utils: Any = require("huggingface_hub.utils")
        self._api: Any = self._hub.HfApi()
        self._places: dict[str, str] = {}
        self._lock = threading.Lock()

    def list(self) -> Mapping[str, ObjectStamp]:
        """The files of the commit."""
        try:
            info = self._api.model_info(self.repository, revision=self._asked, files_metadata=True)
        except Exception as error:
            # The HTTP library below, and so its errors, differs between versions.
            known = refused_by_hub(error, self.repository, self._asked, self.address)
            if known is not None:
                raise known from None
            raise Transient(brief(error)) from error
        self.commit = info.sha
        return {
            file.rfilename: ObjectStamp(file.size, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in info.siblings or ()
            if file.size is not None and all(is_plain_name(part) for part in file.rfilename.split("/"))
        }

    def stat(self, name: str) -> ObjectStamp | None:
        """The stamp of a file of the commit, which cannot change while the repository is there."""
        try:
            found = self._hub.get_hf_file_metadata(self._url(name))
        except self._utils.EntryNotFoundError:
            return None
        except Exception as error:
            raise Transient(brief(error)) from error
        return None if found.size is None else ObjectStamp(found.size, (found.etag or "").strip('"'))

    def get(self, name: str, stamp: ObjectStamp, first: int, last: int) -> np.ndarray:
        """A range of a file of the commit."""
        if first == last:
            return np.empty(0, np.uint8)
        place = self._place(name, stamp)
        headers = {"Range": f"bytes={first}-{last - 1}", "Accept-Encoding": "identity"}
        if urlsplit(place).netloc == urlsplit(self._url(name)).netloc:
            headers |= self._utils.build_hf_headers()
        try:
            status, told, content = self._answer(place, headers, last - first)
        except Exception as error:
            raise Transient(brief(error)) from None
        if status in _EXPIRED or 300 <= status < 400:
            self._forget(name)
            raise Transient(f"status {status}")
        if status >= 500 or status in _LATER:
            raise Transient(f"status {status}")
        if status == 200 and (first, last) != (0, stamp.size):
            hint = "Download it first: name the model without hf://."
            raise CheckpointError("cannot be read in ranges", where=f"{self.address}/{name}", hint=hint)
        total = told.get("Content-Range", f"/{stamp.size}").rpartition("/")[2]
        if status not in (200, 206) or total not in ("*", str(stamp.size)):
            raise Changed(name)
        if len(content) != last - first:
            raise Transient(f"{len(content)} bytes came of {last - first}")
        return np.frombuffer(content, np.uint8)

    def _answer(self, place: str, headers: Mapping[str, str], length: int) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer; of a body that is longer than asked for, not much more than that."""
        session = self._utils.get_session()
        if hasattr(session, "build_request"):  # httpx, from huggingface_hub 1.0 on
            with session.stream("GET", place, headers=headers, timeout=_TIMEOUT) as answer:
                return answer.status_code, answer.headers, at_most(answer.iter_bytes(), length)
        with session.get(place, headers=headers, timeout=_TIMEOUT, stream=True) as answer:
            return answer.status_code, answer.headers, at_most(answer.iter_content(_CHUNK), length)

    def _url(self, name: str) -> str:
        return self._hub.hf_hub_url(self.repository, name, revision=self.commit, endpoint=self._api.endpoint)

    def _place(self, name: str, stamp: ObjectStamp) -> str:
        """Where the bytes of a file are served from; Changed if the Hub says that it is another file."""
        with self._lock:
            place = self._places.get(name)
        if place is None:
            try:
                found = self._hub.get_hf_file_metadata(self._url(name))
            except self._utils.EntryNotFoundError:
                raise Changed(name) from None
            except Exception as error:
                raise Transient(brief(error)) from None
            if found.size != stamp.size or (found.etag or stamp.tag).strip('"') != stamp.tag:
                raise Changed(name)
            place = found.location
            with self._lock:
                self._places[name] = place
        return place

    def _forget(self, name: str) -> None:
        with self._lock:
            self._places.pop(name, None)


def at_most(chunks: Iterable[bytes], length: int) -> bytes:
    """The chunks of a body, no further than the first that goes beyond ``length`` bytes."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > length:
            break
    return bytes(found)
