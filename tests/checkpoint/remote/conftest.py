"""Small models behind remote stores."""

import urllib.request

import numpy as np
import pytest

from rlmerge.checkpoint.remote import file as remote_file
from rlmerge.checkpoint.remote import store
from support.models import write_model
from support.stores import Faults, hub, s3, use_hub, use_s3, web_server

TENSORS = {"model.embed_tokens.weight": np.arange(24.0).reshape(6, 4), "model.norm.weight": np.arange(4.0)}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """No test waits as long as a store would want."""
    monkeypatch.setattr(store, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(store, "LONGEST_DELAY", 0.01)


@pytest.fixture
def models(tmp_path):
    """The folder ``org/base`` below a root; the root."""
    write_model(tmp_path / "root" / "org" / "base", TENSORS, "bfloat16")
    (tmp_path / "root" / "org" / "base" / "tokenizer_config.json").write_text("{}")
    return tmp_path / "root"


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture(params=["web", "hub", "s3"])
def address(request, models, faults, monkeypatch):
    """The address of the folder ``org`` in each kind of store."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def web(models, faults):
    pytest.importorskip("obstore")
    with web_server(models, faults) as endpoint:
        yield f"{endpoint}/org"


@pytest.fixture
def made():
    """Raise ``made[0]`` and all links that the Hub gave are expired."""
    return [1]


@pytest.fixture
def hub_of(models, faults, made, monkeypatch):
    pytest.importorskip("huggingface_hub")
    with hub(models, faults, made) as endpoint:
        use_hub(monkeypatch, endpoint)
        yield "hf://org"


hub_fixture = pytest.fixture(name="hub")(lambda hub_of: hub_of)


@pytest.fixture
def s3_endpoint(faults, monkeypatch):
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with s3(faults) as endpoint:
        use_s3(monkeypatch, endpoint)
        yield endpoint


@pytest.fixture(name="s3")
def s3_fixture(models, s3_endpoint):
    for path in sorted(models.rglob("*")):
        if path.is_file():
            put(f"{s3_endpoint}/bucket/{path.relative_to(models).as_posix()}", path.read_bytes())
    return "s3://bucket/org"


@pytest.fixture
def upload(request, address):
    """Put an object beside those of the models; a folder that is served needs no such thing."""
    if not address.startswith("s3"):
        return lambda name, data: None
    endpoint = request.getfixturevalue("s3_endpoint")
    return lambda name, data: put(f"{endpoint}/bucket/{name}", data)


def put(url, data=b"", method="PUT"):
    headers = {"Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers, method=method), timeout=10).read()


@pytest.fixture
def later(monkeypatch):
    """Every answer of a store is an old one."""
    monkeypatch.setattr(remote_file, "FRESH", 0.0)
