import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.moe.config import read_config
from rlmerge.moe.opening import open_all
from support.models import write_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "one"):
        write_model(tmp_path / name, {"w": [1.0]})
    return tmp_path


def config(*models):
    experts = [{"source_model": model} for model in models]
    return read_config({"base_model": "base", "gate_mode": "random", "experts": experts})


def test_one_model_under_two_names_is_opened_once(folder):
    asked = config("./base", "one", str(folder / "one"))
    opened = open_all(asked)
    assert [model.reference for model in opened.values()] == ["base", "one"]
    assert {opened[expert.model.identity].path.name for expert in asked.experts} == {"base", "one"}


def test_all_that_is_missing(folder):
    with pytest.raises(RecipeError, match=r"no/such/one(?s:.*)no/such/two"):
        open_all(config("./no/such/one", "./no/such/two"))
    with pytest.raises(RequestError, match="no/such/one"):
        open_all(config("./no/such/one", "base"))
