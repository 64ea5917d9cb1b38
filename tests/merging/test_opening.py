"""One model under several names: which references lead to one, and that it changes no byte of a merge."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlmerge.checkpoint.formats import ADAPTER
from rlmerge.errors import RecipeError, RequestError
from rlmerge.merging.opening import open_models
from rlmerge.recipe import load_recipe
from support.adapters import write_adapter
from support.family import draw, tree
from support.merges import merge, plan
from support.models import write_model

SHAPES = {"model.layers.0.w": (40, 60), "model.norm.weight": (60,)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``base``, ``e0`` and ``e1`` in the home directory; the Hub cache is empty and there is no network."""
    base, experts = draw(3, 2, SHAPES)
    for name, model in zip(("base", "e0", "e1"), (base, *experts), strict=True):
        write_model(tmp_path / name, model, "bfloat16")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(base, *models, method="ties", **parameters):
    listed = [{"model": model} for model in models]
    return load_recipe({"merge_method": method, "base_model": base, "models": listed, "parameters": parameters})


def experts_of(base, *models, **asked):
    return [expert.path.name for expert in open_models(recipe(base, *models, **asked)).experts]


def spellings(folder):
    shutil.copytree(folder / "base", folder / "copy")
    (folder / "link").symlink_to(folder / "base")
    return ["base", "./base", "base/", "~/base", "e0/../base", f"{folder}/base", f"{folder}/base/", "link", "copy"]


def test_every_spelling_of_the_base_is_the_base(folder):
    names = spellings(folder)
    for base in names:
        for listed in names:
            assert experts_of(base, listed, "e0", "e1") == ["e0", "e1"], (base, listed)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("dare_ties", {"density": 0.5}), ("dare_linear", {"density": 0.5}), ("della", {"density": 0.5}), ("ties", {}),
     ("model_stock", {}), ("task_arithmetic", {"normalize": True}), ("ram", {}), ("sce", {})],
)  # fmt: skip
def test_listing_the_base_changes_no_bit(folder, method, parameters):
    """Random masks included, wherever in the list it stands."""
    spellings(folder)
    settings = json.dumps(parameters)
    weights = {}
    for listed in ("", "$/link, ", "~/base, ", "$/copy, "):
        text = f"{{merge_method: {method}, base_model: $/base, parameters: {settings}, models: [{listed}$/e0, $/e1]}}"
        merge(folder, text, out=f"out{len(weights)}")
        weights[listed] = (folder / f"out{len(weights)}" / "model.safetensors").read_bytes()
    assert len(set(weights.values())) == 1


def test_a_copy_of_the_base_is_said_to_be_it(folder):
    spellings(folder)
    text = "{merge_method: ties, base_model: $/base, models: [$/e0, $/copy]}"
    warning = f"{folder}/copy is the base itself (equal weights): it has no task vector, so it is left out"
    assert warning in plan(folder, text).warnings


def test_methods_that_average_weights_count_the_base_among_them(folder):
    spellings(folder)
    assert experts_of("base", "~/base", "e0", method="linear", weight=1) == ["base", "e0"]
    assert experts_of("base", "copy", "e0", "base", method="linear", weight=1) == ["copy", "e0", "base"]


def test_an_expert_under_two_names_counts_twice_with_a_warning(folder):
    shutil.copytree(folder / "e0", folder / "again")
    text = "{merge_method: ties, base_model: $/base, models: [$/e0, $/e1, $/again]}"
    (said,) = [warning for warning in plan(folder, text).warnings if "second name" in warning]
    assert said == f"{folder}/again is {folder}/e0 under a second name (equal weights) and counts beside it"
    twice = "{merge_method: ties, base_model: $/base, models: [$/e0, $/e0]}"
    assert [warning.split(": ")[-1] for warning in plan(folder, twice).warnings] == [
        f"model '{folder}/e0' is listed twice and counts twice"
    ]


def test_nothing_but_the_base(folder):
    spellings(folder)
    for listed in ("base/", "link"):
        with pytest.raises(RequestError, match=r"takes at least 1 model\(s\) besides the base, not 0"):
            recipe("~/base", listed, method="ram")
    # Training that saved nothing new is told from a slip of the pen: its directory is another one.
    assert experts_of("base", "copy", method="ram") == ["copy"]


# The Hub's cache


@pytest.fixture
def cached(folder, monkeypatch):
    """``base`` as ``org/base`` in the Hub's cache: files are links to blobs."""
    pytest.importorskip("huggingface_hub")
    cache = folder / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache), raising=False)
    repository = cache / "models--org--base"
    snapshot = repository / "snapshots" / COMMIT
    for place in (repository / "blobs", repository / "refs", snapshot):
        place.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted((folder / "base").iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def test_a_hub_id_its_revisions_and_its_snapshot_are_one_model(cached):
    names = ["org/base", "org/base@main", f"org/base@{COMMIT}", str(cached)]
    for base in names:
        for listed in names:
            models = open_models(recipe(base, listed, "e0", "e1"))
            assert [expert.path.name for expert in models.experts] == ["e0", "e1"], (base, listed)
            assert models.base is not None
            assert models.base.path == cached.resolve()


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_a_base_listed_under_another_name_is_averaged_once(folder, cached, method):
    """mergekit goes by names and would count it twice, as a base that is not listed and as a model."""

    def listed_by(base, *listed, more=""):
        models = ", ".join(name if "/" in name else f"$/{name}" for name in listed)
        text = f"{{merge_method: {method}, base_model: {base}, parameters: {{weight: 1}}, models: [{models}]{more}}}"
        found = plan(folder, text)
        return [expert.reference for expert in found.experts], [w for w in found.warnings if "second name" in w]

    names, warnings = listed_by("org/base", str(cached), "e0")
    assert names == ["org/base", str(folder / "e0")]
    assert warnings == [
        f"{cached} is the base under a second name, so it is averaged once; mergekit, which goes by names, counts both"
    ]
    assert len(listed_by("org/base", "org/base@main", "e0")[0]) == 2
    # A base that is not there under any name is averaged in; what is listed twice counts twice.
    assert len(listed_by("org/base", "e0", "e1")[0]) == 3
    assert len(listed_by("org/base", "org/base", "org/base@main", "e0")[0]) == 3
    assert len(listed_by("org/base", str(cached), "e0", more=", compat: mergekit")[0]) == 3


def test_an_average_of_a_base_of_two_names_is_rebuilt_from_its_lock(folder, cached):
    text = f"{{merge_method: linear, base_model: org/base, parameters: {{weight: 1}}, models: [{cached}, $/e0]}}"
    weights, _ = merge(folder, text)
    assert merge(folder, str(folder / "out" / "rlmerge.lock.yaml"), out="again")[0] == weights


def test_an_adapter_named_by_its_hub_id_finds_its_base(folder, cached):
    """As where the base of a recipe is an adapter itself, or one is converted."""
    snapshot = cached.parents[2] / "models--org--adapter" / "snapshots" / COMMIT
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    snapshot.mkdir(parents=True)
    write_adapter(snapshot, {"model.norm.weight": np.ones(60, np.float32)}, base_model_name_or_path="org/base")
    models = open_models(recipe("org/adapter", "e0"))
    assert models.base.format == ADAPTER and models.base.side_root == cached.resolve()


def test_nothing_but_the_base_from_the_hub(cached):
    with pytest.raises(RequestError, match=r"takes at least 1 expert\(s\) besides the base, not 0"):
        open_models(recipe("org/base", str(cached)))


def test_weights_do_not_depend_on_where_the_base_lies(folder, cached):
    del cached
    for base in ("org/base", "org/base@main", "$/base"):
        text = f"{{merge_method: dare_ties, base_model: {base}, parameters: {{density: 0.5}}, models: [$/e0, $/e1]}}"
        merge(folder, text, out=base.replace("/", "_"))
    outputs = [tree(folder / name)["model.safetensors"] for name in ("org_base", "org_base@main", "$_base")]
    assert outputs[0] == outputs[1] == outputs[2]


# What cannot be opened


def test_a_broken_base_is_one_problem_however_many_models_need_it(folder):
    with pytest.raises(RequestError, match=r"^no-such: no such directory") as caught:
        open_models(recipe("no-such", "e0", "e1"))
    assert not isinstance(caught.value, RecipeError)
    with pytest.raises(RecipeError) as several:
        open_models(recipe("no-such", "e0", "neither", "e1"))
    assert [problem.where for problem in several.value.problems] == ["no-such", "neither"]


def test_a_broken_model_below_an_adapter_is_one_problem(folder):
    (folder / "adapter").mkdir()
    with pytest.raises(RequestError, match="no-such") as caught:
        open_models(recipe("base", "no-such+adapter", "no-such"))
    assert not isinstance(caught.value, RecipeError)


def test_a_directory_of_changes_without_its_base_is_one_problem(folder):
    """The adapter is in order, and what it names is not there: named relative to here, as everything is."""
    settings = {"base_model_name_or_path": "gone/model", "peft_type": "LORA", "r": 1}
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copy(folder / "e0" / "model.safetensors", folder / "adapter" / "adapter_model.safetensors")
    for recipe_ in (
        {"merge_method": "linear", "models": ["adapter", "e0"]},
        {"merge_method": "ties", "base_model": "gone/model", "models": ["adapter", "e0"]},
    ):
        with pytest.raises(RequestError, match=r"^gone/model: ") as caught:
            open_models(load_recipe(recipe_))
        assert not isinstance(caught.value, RecipeError)


def test_a_changed_byte_makes_another_model(folder):
    """A copy of which one weight moved is an expert."""
    base, _ = draw(3, 2, SHAPES)
    base["model.norm.weight"] = np.where(np.arange(60) == 7, 2.0, base["model.norm.weight"])
    write_model(folder / "moved", base, "bfloat16")
    assert experts_of("base", "moved", "e0") == ["moved", "e0"]
