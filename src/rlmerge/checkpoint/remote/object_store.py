"""Models in S3, Google Cloud Storage, Azure and on web servers, through obstore (extra ``remote``).

obstore was chosen over fsspec by measurement (``bench/remote.py``): it keeps more requests in flight for less work of
the processor, and every request can carry the etag it expects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import INDEX, SINGLE
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import is_plain_name
from rlmerge.checkpoint.remote.refusals import ENDPOINTS, brief, refusal
from rlmerge.checkpoint.remote.store import Changed, ObjectStamp, Transient, refused, retried
from rlmerge.errors import CheckpointError
from rlmerge.extras import require

Value = TypeVar("Value")

MAX_OBJECTS = 20_000
"""Most objects below an address; a model has a few hundred."""

_TIMEOUTS = {"timeout": "120s", "connect_timeout": "10s"}

PROBED = (
    SINGLE, INDEX, "adapter_model.safetensors", "adapter_config.json", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "tekken.json", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md",
)  # fmt: skip
"""Names that are asked for where a server lists nothing."""


class ObjectStore:
    """A prefix of a bucket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._library: Any = require("obstore")
        self._errors: Any = require("obstore.exceptions")
        self._stores: Any = require("obstore.store")
        # Tries are counted here, so that every kind of store has the same number of them.
        self._store = self._connect(self._stores, {"max_retries": 0})

    def _connect(self, stores: Any, retries: Mapping[str, Any]) -> Any:
        given: dict[str, Any] = {"retry_config": dict(retries), "client_options": dict(_TIMEOUTS)}
        scheme, _, rest = self.address.partition("://")
        scheme = scheme.lower()
        try:
            if scheme in ("http", "https"):
                given["client_options"]["allow_http"] = scheme == "http"
                return stores.HTTPStore.from_url(self.address, **given)
            endpoint = _endpoint(ENDPOINTS[scheme])
            given["client_options"]["allow_http"] = endpoint is not None and endpoint.startswith("http://")
            if scheme != "s3":
                return stores.from_url(self.address, **given)
            bucket, _, prefix = rest.partition("/")
            if endpoint is not None:
                given["endpoint"] = endpoint
            if _in_profile():
                given["credential_provider"] = require("obstore.auth.boto3").Boto3CredentialProvider()
            return stores.S3Store(bucket, prefix=prefix or None, **given)
        except self._errors.BaseError as error:
            hint = "Set what the store needs (region, account, endpoint) in the environment."
            raise CheckpointError(f"cannot be opened ({brief(error)})", where=self.address, hint=hint) from None

    def list(self) -> Mapping[str, ObjectStamp]:
        """Every object below the address whose name is plain."""
        found: dict[str, ObjectStamp] = {}
        for batch in self._ask(lambda: list(self._batches()), ""):
            for entry in batch:
                if all(is_plain_name(part) for part in entry["path"].split("/")):
                    found[entry["path"]] = stamp_of(entry)
        return found

    def _batches(self) -> Any:
        held = 0
        for batch in self._library.list(self._store):
            held += len(batch)
            if held > MAX_OBJECTS:
                hint = "Name the folder that holds one model."
                raise CheckpointError(f"holds more than {MAX_OBJECTS:,} objects", where=self.address, hint=hint)
            yield batch

    def stat(self, name: str) -> ObjectStamp | None:
        """The stamp of an object now."""
        try:
            return stamp_of(self._ask(lambda: self._library.head(self._store, name), name))
        except FileNotFoundError:
            return None

    def get(self, name: str, stamp: ObjectStamp, first: int, last: int) -> np.ndarray:
        """A range of the edition that has this stamp."""
        options: dict[str, Any] = {"range": (first, last)}
        if stamp.tag.startswith('"'):
            options["if_match"] = stamp.tag

        def fetch() -> np.ndarray:
            answer = self._library.get(self._store, name, options=options)
            if stamp_of(answer.meta) != stamp:
                raise Changed(name)
            return np.frombuffer(answer.bytes(), np.uint8)

        try:
            data = self._ask(fetch, name)
        except FileNotFoundError:
            raise Changed(name) from None
        if len(data) != last - first:
            raise Transient(f"{len(data)} bytes came of {last - first}")
        return data

    def _ask(self, request: Callable[[], Value], name: str) -> Value:
        """The answer to a request, with the library's errors as ours; FileNotFoundError if there is no such object."""
        errors = self._errors
        where = f"{self.address}/{name}" if name else self.address
        try:
            return request()
        except (FileNotFoundError, CheckpointError, Changed):
            raise
        except errors.PreconditionError:
            raise Changed(name) from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            refused(where, refusal(error))
        except errors.InvalidPathError as error:
            hint = "Remove or rename that object with the store's own tools, or choose another folder."
            raise CheckpointError(
                f"holds an object whose name is no path ({brief(error)})", where=where, hint=hint
            ) from None
        except errors.NotSupportedError as error:
            hint = "Copy the model here first, or serve it with a server that answers range requests."
            raise CheckpointError(f"cannot be read in ranges ({brief(error)})", where=where, hint=hint) from None
        except (errors.BaseError, OSError, ValueError) as error:
            if (found := refusal(error)) is not None:
                refused(where, found)
            raise Transient(str(error)) from error


class WebServer(ObjectStore):
    """A folder of a web server, which has no listing: the names that models have are asked for."""

    def list(self) -> Mapping[str, ObjectStamp]:
        """The files that are there of those a model may have, and the shards that an index names."""
        found = self._stat_all(PROBED)
        if INDEX in found and SINGLE not in found:
            found |= self._stat_all(tuple(self._indexed(found[INDEX])))
        return found

    def _stat_all(self, names: tuple[str, ...]) -> dict[str, ObjectStamp]:
        with ThreadPoolExecutor(16) as pool:
            stamps = pool.map(lambda name: retried(lambda: self.stat(name), f"{self.address}/{name}"), names)
            return {name: stamp for name, stamp in zip(names, stamps, strict=True) if stamp is not None}

    def _indexed(self, stamp: ObjectStamp) -> set[str]:
        where = f"{self.address}/{INDEX}"
        if stamp.size > MAX_HEADER:
            raise CheckpointError(f"is {stamp.size} bytes long; at most {MAX_HEADER} are read", where=where)
        content = strictjson.parse(self.get(INDEX, stamp, 0, stamp.size).tobytes(), where)
        placed = content.get("weight_map") if isinstance(content, dict) else None
        names = set(placed.values()) if isinstance(placed, dict) else set[str]()
        return {name for name in names if isinstance(name, str) and is_plain_name(name)}


def stamp_of(meta: Any) -> ObjectStamp:
    """An etag where it says that the bytes are equal, else the time of the last change."""
    tag = meta["e_tag"]
    if tag is None or tag.startswith("W/"):
        return ObjectStamp(meta["size"], meta["last_modified"].isoformat())
    return ObjectStamp(meta["size"], tag if tag.startswith('"') else f'"{tag}"')


def _endpoint(names: Sequence[str]) -> str | None:
    """Where the environment says that the store is; CheckpointError if that is no place the library could ask."""
    for name in names:
        if endpoint := os.environ.get(name):
            try:
                parts = urlsplit(endpoint)
                is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                is_sound = False
            if not is_sound or not endpoint.isascii() or any(c.isspace() or not c.isprintable() for c in endpoint):
                hint = f"{name} must be like https://host or http://host:port."
                raise CheckpointError("the endpoint that the environment sets is no address", where=name, hint=hint)
            return endpoint
    return None


def _in_profile() -> bool:
    """Whether the credentials of S3 are in the files of the AWS tools, which boto3 reads."""
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return False
    try:
        import boto3  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return boto3.Session().get_credentials() is not None
