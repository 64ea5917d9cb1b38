"""A bucket to merge into, models to merge, and what is asked of both."""

import numpy as np
import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytest.importorskip("boto3")

import boto3
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends

import rlmerge
from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.remote import outbox, store
from rlmerge.checkpoint.remote.folder import Folder
from rlmerge.errors import CheckpointError
from support.family import recipe, tree
from support.models import write_model
from support.stores import Faults, s3, use_s3

SHAPES = {"model.embed_tokens.weight": (500, 600), "model.layers.0.mlp.up_proj.weight": (301, 1023), "model.s": ()}
SECRETS = {"aws_access_key_id": "key", "aws_secret_access_key": "hunter2"}
SIZE = 400_000
"""Bytes of a shard: the larger two tensors get one each."""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """``base``, ``e0`` and ``e1``."""
    folder = tmp_path_factory.mktemp("family")
    rng = np.random.default_rng(3)
    base = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    for name in ("base", "e0", "e1"):
        changed = {k: w + (name != "base") * 0.1 * rng.standard_normal(w.shape) for k, w in base.items()}
        write_model(folder / name, changed, "bfloat16")
    return folder


@pytest.fixture(scope="module")
def server():
    """One for all tests, and Amazon's own library beside it, which takes long to start."""
    told = Faults()
    with s3(told) as endpoint:
        yield told, endpoint, boto3.client("s3", "us-east-1", endpoint_url=endpoint, **SECRETS)


@pytest.fixture
def faults(server, monkeypatch):
    monkeypatch.setattr(store, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(store, "LONGEST_DELAY", 0.01)
    monkeypatch.setattr(outbox, "ATTEMPTS", 2)
    told = server[0]
    told.plan = Faults().plan
    told.log.clear()
    return told


@pytest.fixture
def bucket(server, faults, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_s3(monkeypatch, server[1])
    return Bucket(server[2])


class Bucket:
    """What is in the bucket; written by Amazon's own library."""

    def __init__(self, client):
        self.client = client

    def objects(self):
        """What the server holds, read where it keeps it: a test asks often."""
        return {name: key.value for name, key in s3_backends[ACCOUNT]["aws"].buckets["bucket"].keys.items()}

    def folder(self, name):
        found = self.objects()
        return {key.removeprefix(f"{name}/"): data for key, data in found.items() if key.startswith(f"{name}/")}

    def unfinished(self):
        return self.client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])

    def put(self, name, data):
        self.client.put_object(Bucket="bucket", Key=name, Body=data)


OUT = "s3://bucket/models/merged"


def asked(family, method="ties"):
    return recipe(family, method, count=2, density=0.3)


def merge(family, out, size=SIZE, **options):
    return rlmerge.merge(asked(family), out, shard_size=size, **options)


@pytest.fixture(scope="module")
def alone(family, tmp_path_factory):
    """The files of a merge into a directory, with shards of such a size."""
    place, made = tmp_path_factory.mktemp("alone"), {}

    def of(size=SIZE):
        if size not in made:
            merge(family, place / str(size), size)
            made[size] = tree(place / str(size))
        return made[size]

    return of


def left(tmp_path):
    """What uploads have left in the cache."""
    return [
        path
        for path in (tmp_path / "cache" / "rlmerge" / "uploads").rglob("*")
        if path.is_file() and path.name != "number"
    ]


SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


def puts(faults):
    """Names of the objects of the target in the order in which they were put."""
    return [path.rpartition("/")[2] for verb, path, _ in faults.log if verb == "PUT" and "models/merged/" in path]


def broken(faults, suffix, after=0):
    """From the ``after``-th request to write something of that name, all fail; returns the fault's own count."""
    seen = []

    def plan(verb, path, number):
        if verb in ("PUT", "POST") and path.endswith(suffix):
            seen.append(path)
            return "500" if len(seen) > after else None
        return None

    faults.plan = plan
    return seen


def before_the_end(monkeypatch, action):
    """Do something when all has been sent but what makes a model of it."""
    check = Folder.check_unchanged
    monkeypatch.setattr(Folder, "check_unchanged", lambda *given: (action(), check(*given)))


def readable(address):
    """Whether a reader finds a model there."""
    try:
        open_checkpoint(address)
    except CheckpointError:
        return False
    return True
