"""Merges into and out of gs:// and az://, beside emulators of those stores that registries ship.

    npm install --prefix DIR azurite
    python bench/emulators.py --azurite DIR/node_modules/.bin/azurite-blob
    python bench/emulators.py --fake-gcs-server PATH

``az://``: a model is merged into the store, replaced with ``--force``, refused while another run has the folder, read
back by ``verify`` and by a merge from ``az://`` to ``az://``; all objects must be those of merges into directories.
``gs://``: the emulators of Google's store that registries ship take writes by the JSON interface only, which the
library does not use; so models are put there by that, and merged from ``gs://`` into a directory. Exits with 1 at the
first difference.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import obstore
from generate import Spec, generate, llama, quantity
from kill import content
from obstore.store import from_url

import rlmerge
from rlmerge.checkpoint.remote.hold import Hold
from rlmerge.checkpoint.remote.outbox import Outbox
from rlmerge.errors import RequestError, RlmergeError

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those of every Azure emulator; they open nothing else."""

SHARD = "12MB"


@contextmanager
def running(words: Sequence[str], port: int) -> Iterator[None]:
    """A server, once it answers."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise SystemExit(f"{words[0]} ended with {process.returncode}")
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def make_container(port: int, name: str) -> None:
    """Azure's request for a new container, signed with the emulator's key."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n{resource}"
    signed = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signed}"}
    headers |= {"Content-Length": "0", "Content-Type": ""}
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{name}?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, b"", headers, method="PUT"), timeout=30).read()


def there(address: str) -> dict[str, bytes]:
    """The objects below an address by their names."""
    store = from_url(address, client_options={"allow_http": True})
    names = [entry["path"] for batch in obstore.list(store) for entry in batch]
    return {name: bytes(obstore.get(store, name).bytes()) for name in names}


def recipe(models: str, density: float) -> dict[str, object]:
    experts = [{"model": f"{models}/expert-{k}"} for k in range(2)]
    return {
        "merge_method": "ties",
        "base_model": f"{models}/base",
        "models": experts,
        "parameters": {"density": density},
    }


def same(found: dict[str, bytes], expected: dict[str, bytes], what: str) -> None:
    if found != expected:
        names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        sys.exit(f"{what}: {names} differ")
    print(f"{what}: {len(found)} objects, the bytes of a merge into a directory", flush=True)


def weights(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without what names where the models lay."""
    return {name: data for name, data in found.items() if name.endswith((".safetensors", "index.json"))}


def check_azure(program: str, folder: Path) -> None:
    port = free_port()
    words = [program, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobPort", str(port)]
    os.environ |= {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
    }
    for number, density in enumerate((0.2, 0.4)):
        rlmerge.merge(recipe(str(folder), density), folder / f"alone-{number}", shard_size=SHARD)
    alone = [content(folder / f"alone-{number}") for number in range(2)]
    with running(words, port):
        make_container(port, "models")
        out = "az://models/some/merged"
        rlmerge.merge(recipe(str(folder), 0.2), out, shard_size=SHARD)
        same(there(out), alone[0], "az://, a new model")
        rlmerge.merge(recipe(str(folder), 0.4), out, shard_size=SHARD, force=True)
        same(there("az://models/some"), {f"merged/{n}": d for n, d in alone[1].items()}, "az://, replaced")
        if not rlmerge.verify(out).ok:
            sys.exit("az://: verify found differences")
        other = Hold(Outbox("az://models/some"), "merged", folder / "other", "plan")
        other.take()
        try:
            rlmerge.merge(recipe(str(folder), 0.2), out, shard_size=SHARD, force=True)
            sys.exit("az://: two runs wrote at the same time")
        except RequestError as error:
            print(f"az://, two runs: {error.what}", flush=True)
        other.end(let_go=True)
        store = from_url("az://models/in", client_options={"allow_http": True})
        for path in sorted(folder.glob("[be]*/*")):
            obstore.put(store, path.relative_to(folder).as_posix(), path)
        rlmerge.merge(recipe("az://models/in", 0.4), "az://models/again", shard_size=SHARD)
        same(weights(there("az://models/again")), weights(alone[1]), "az:// to az://")


def check_google(program: str, folder: Path) -> None:
    port = free_port()
    place = f"http://127.0.0.1:{port}"
    words = [program, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    words += ["-public-host", f"127.0.0.1:{port}", "-external-url", place]
    account: dict[str, object] = {"gcs_base_url": place, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    (folder / "account.json").write_text(json.dumps(account))
    os.environ |= {"GOOGLE_BASE_URL": place, "GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json")}
    rlmerge.merge(recipe(str(folder), 0.2), folder / "alone", shard_size=SHARD)
    with running(words, port):
        headers = {"Content-Type": "application/json"}
        made = urllib.request.Request(f"{place}/storage/v1/b?project=p", b'{"name": "models"}', headers)
        urllib.request.urlopen(made, timeout=30).read()
        for path in sorted(folder.glob("[be]*/*")):
            name = quote(f"in/{path.relative_to(folder).as_posix()}", safe="")
            url = f"{place}/upload/storage/v1/b/models/o?uploadType=media&name={name}"
            headers = {"Content-Type": "application/octet-stream"}
            urllib.request.urlopen(urllib.request.Request(url, path.read_bytes(), headers), timeout=60).read()
        rlmerge.merge(recipe("gs://models/in", 0.2), folder / "out", shard_size=SHARD)
        same(weights(content(folder / "out")), weights(content(folder / "alone")), "gs:// into a directory")
        try:
            rlmerge.merge(recipe(str(folder), 0.2), "gs://models/merged", shard_size=SHARD)
            print("gs://, a new model: written", flush=True)
        except RlmergeError as error:
            print(f"gs://, a new model: not by this emulator ({error})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--azurite", help="Azure's emulator, npm's azurite-blob")
    parser.add_argument("--fake-gcs-server", help="an emulator of Google's store")
    parser.add_argument("--parameters", type=quantity, default="15M", help="of one model (default 15M)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlmerge-emulators-") as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        generate(folder, *llama(asked.parameters), Spec(experts=2))
        if asked.azurite:
            check_azure(asked.azurite, folder)
        if asked.fake_gcs_server:
            check_google(asked.fake_gcs_server, folder)


if __name__ == "__main__":
    main()
