"""Addresses of models that are not on this machine: `s3://`, `gs://`, `az://`, `https://` and `hf://`, without secrets.

What is written here ends in plans, locks, cards and logs. Credentials therefore have no place in an address, and what
looks like one is refused without being repeated.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

SCHEMES = ("s3", "gs", "az", "https", "http", "hf")

WRITABLE = ("s3", "gs", "az")
"""Schemes of stores that a model can be written to."""

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHAIN = "Leave it away; credentials come from the environment or the cloud's own configuration."


def is_address(text: str) -> bool:
    """Whether ``text`` names something on another machine rather than a path or a Hub id."""
    return _ADDRESS.match(text) is not None


def check_address(text: str) -> str:
    """``text`` without a trailing slash; ValueError, which never repeats a secret, if it is no usable address."""
    scheme, parts = _split(text)
    if scheme not in SCHEMES:
        raise ValueError(f"'{scheme}://' is not an address of models; known: {', '.join(f'{s}://' for s in SCHEMES)}")
    if scheme == "hf":
        found = text.removeprefix("hf://")
        if not _HUB.fullmatch(found):
            raise ValueError("an address on the Hub reads hf://org/name or hf://org/name@revision")
        return text
    shown = f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        raise ValueError(f"{shown} was given with a user name or a secret. {_CHAIN}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError(f"{shown} was given with a query, such as that of a signed link. {_CHAIN}")
    if not parts.netloc:
        raise ValueError(f"{shown} names no bucket or host")
    if scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError(f"{shown} would be read without encryption; use https://")
    if any(part in (".", "..") for part in parts.path.split("/")) or not text.isprintable() or "\\" in text:
        raise ValueError(f"{shown!a} is not a plain address: it holds '.', '..', or characters that cannot be seen")
    return text.rstrip("/")


def check_output(text: str) -> str:
    """``text`` without a trailing slash; ValueError if it is no folder of an object store that we write."""
    address = check_address(text)
    scheme, _, rest = address.partition("://")
    if scheme.lower() == "hf":
        raise ValueError("the Hub takes finished models: write a directory here, then rlmerge push OUT org/name")
    if scheme.lower() not in WRITABLE:
        raise ValueError(f"nothing can be written to {scheme}://; known: {', '.join(f'{s}://' for s in WRITABLE)}")
    if not rest.partition("/")[2].strip("/") or "//" in rest:
        raise ValueError(f"{address} names no folder for one model; write {scheme}://bucket/folder")
    return address


_standing: dict[str, str] = {}


def stand_in(path: str, address: str) -> None:
    """From now on the local ``path`` stands for ``address``."""
    _standing[path] = address


def addressed(text: str) -> str:
    """``text`` with local paths that stand for addresses as these."""
    for path, address in _standing.items():
        text = text.replace(path, address)
    return text


def without_secrets(text: str) -> str:
    """``text`` with user names and queries of all addresses in it cut out, for messages of other libraries."""
    text = re.sub(r"(://)[^/\s@'\"]*@", r"\1", text)
    return re.sub(r"(\w+://[^\s?'\"<>]*)\?[^\s'\"<>)]*", r"\1", text)


def _split(text: str) -> tuple[str, SplitResult]:
    found = _ADDRESS.match(text)
    scheme = found["scheme"].lower() if found else ""
    try:
        return scheme, urlsplit(text)
    except ValueError:
        raise ValueError(f"this address of {scheme}:// cannot be read") from None
