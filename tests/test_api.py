"""The Python interface as a user calls it, from a recipe to a verified directory, its card and its lock."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import rlmerge
from rlmerge.errors import RecipeError, RequestError
from support.family import cli, draw, tree
from support.models import read_model, write_model

SHAPES = {"model.embed_tokens.weight": (100, 40), "model.layers.0.w": (40, 40), "model.norm.weight": (40,)}
TEXT = """
merge_method: task_arithmetic
base_model: base
models:
- model: e0
- model: e1
  parameters: {weight: 0.5}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory: ``base``, ``e0`` and ``e1`` in bfloat16, and a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, experts = draw(2, 2, SHAPES)
    write_model(tmp_path / "base", base, "bfloat16")
    for k, expert in enumerate(experts):
        write_model(tmp_path / f"e{k}", expert, "bfloat16")
    Path("recipe.yaml").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(
    "recipe",
    ["recipe.yaml", Path("recipe.yaml"), TEXT, yaml.safe_load(TEXT)],
    ids=["file", "path", "text", "mapping"],
)
def test_a_recipe_of_any_kind_becomes_a_directory(recipe):
    result = rlmerge.merge(recipe, "out", progress=None)
    assert (result.out, result.method, result.tensors) == (Path("out"), "task_arithmetic", 3)
    assert rlmerge.verify("out").ok
    base, one, two = (read_model(Path(name)) for name in ("base", "e0", "e1"))
    for name, merged in read_model(Path("out")).items():
        b, x, y = (model[name].astype(np.float32) for model in (base, one, two))
        expected = b + ((x - b) + np.float32(0.5) * (y - b))
        np.testing.assert_array_equal(merged, expected.astype(merged.dtype))
    assert rlmerge.merge(rlmerge.load_recipe(TEXT), "again").survived == result.survived


def test_a_plan_costs_nothing_and_tells_all(folder):
    before = tree(folder)
    plan = rlmerge.plan("recipe.yaml", "out", memory=2**26, workers=2)
    data = plan.to_dict()
    assert json.loads(json.dumps(data)) == data
    numel = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert (data["parameters"], data["bytes_read"], data["merged_tensors"]) == (numel, 3 * 2 * numel, 3)
    assert 0 < data["peak_memory"] <= 2**26
    assert tree(folder) == before


def test_one_plan_can_be_carried_out_twice(folder):
    from rlmerge.api import run_plan

    plan = rlmerge.plan("recipe.yaml")
    run_plan(plan, "one")
    run_plan(plan, "two")
    assert tree(folder / "one") == tree(folder / "two")


def test_every_problem_of_a_recipe_at_once():
    broken = TEXT.replace("base\n", "bass\n", 1).replace("weight: 0.5", "wieght: 0.5").replace("models:", "modles:", 1)
    with pytest.raises(RecipeError) as caught:
        rlmerge.merge(broken, "out")
    assert len(caught.value.problems) >= 2
    assert not Path("out").exists()


def test_what_cannot_be_an_option():
    for options, message in (
        ({"memroy": 3}, "unknown option 'memroy'\n  Did you mean 'memory'"),
        ({"memory": "2 gigs"}, "memory: '2 gigs' is not a size"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"resume": "yes"}, "resume must be True or False"),
        ({"dtype": 16}, "dtype must be the name of a type"),
        ({"memory": 1000}, "Give at least 32MiB"),
        ({"workers": 0}, "workers must be between 1 and 256"),
        ({"shard_size": 0}, "a shard size of 0 bytes"),
        ({"rounding": "stochastik"}, "Did you mean 'stochastic'"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite cannot be 'ignore'"),
        ({"dtype": "int8"}, "'int8' is not a type to merge in"),
        ({"out_dtype": "float32", "rounding": "stochastic"}, "stochastic rounding writes bfloat16 or float16"),
    ):
        with pytest.raises(RequestError, match=message):
            rlmerge.merge("recipe.yaml", "out", **options)
    assert not Path("out").exists()


def test_progress_is_told_of_every_byte(folder):
    class Watch:
        def __init__(self):
            self.phases, self.messages = [], []

        def start(self, phase, total, unit=""):
            self.phases.append([phase, total, 0])

        def advance(self, nbytes):
            self.phases[-1][2] += nbytes

        def message(self, text):
            self.messages.append(text)

        def done(self):
            self.phases[-1].append("done")

    watch = Watch()
    recipe = yaml.safe_load(TEXT) | {"merge_method": "ties", "parameters": {"density": 0.5, "scope": "global"}}
    result = rlmerge.merge(recipe, "out", progress=watch)
    read = result.bytes_read
    # A statistic over bfloat16 models takes one pass, for their differences have few low bits.
    assert watch.phases[0] == ["scan 1/1", read, read, "done"]
    assert watch.phases[1:] == [["merge", read, read, "done"], ["seal", 0, 0, "done"]]
    assert watch.messages == []


def test_the_card_names_models_license_and_survival(folder):
    for name, license in (("base", "mit"), ("e0", "apache-2.0"), ("e1", "llama3.1")):
        (folder / name / "README.md").write_text(f"---\nlicense: {license}\n---\n# {name}\n")
    absolute = yaml.safe_load(TEXT.replace("base_model: base", f"base_model: {folder / 'base'}"))
    result = rlmerge.merge(absolute, "out")
    text = Path("out/README.md").read_text()
    head = text.split("---\n")[1]
    matter = yaml.safe_load(head)
    assert matter["base_model"] == ["base", "e0", "e1"]
    assert matter["base_model_relation"] == "merge"
    assert {"merge", "rlmerge"} <= set(matter["tags"])
    assert matter["library_name"] == "transformers"
    assert matter["license"] == "llama3.1"
    assert str(folder) not in head
    assert f"| e0 | {result.experts[0].changed:,} | {result.experts[0].survival:.1%} |" in text
    assert "merge_method: task_arithmetic" in text


def test_without_every_license_the_card_states_none(folder):
    (folder / "base" / "README.md").write_text("---\nlicense: mit\n---\n")
    rlmerge.merge("recipe.yaml", "out")
    text = Path("out/README.md").read_text()
    assert "license" not in yaml.safe_load(text.split("---\n")[1])
    assert "not every source model states one" in text


OPTIONS = ["--seed", "7", "--rounding", "stochastic", "--out-dtype", "bf16", "--shard-size", "6kB"]


def test_a_lock_file_gives_the_same_directory_again(folder):
    flags = ["--method", "dare_ties", "-p", "density=0.5,0.3", "--base", "base", "e0", "e1"]
    assert cli(folder, "merge", *flags, *OPTIONS, "-o", "one").returncode == 0
    done = cli(folder, "merge", "one/rlmerge.lock.yaml", "-o", "two", "--workers", "1", "--memory", "64MB")
    assert done.returncode == 0, done.stderr
    assert tree(folder / "one") == tree(folder / "two")
    rlmerge.merge("one/rlmerge.lock.yaml", "three", seed=7)
    assert tree(folder / "one") == tree(folder / "three")
    assert len(list(Path("one").glob("model-*.safetensors"))) > 1


def test_a_lock_file_refuses_other_models_and_options(folder):
    rlmerge.merge("recipe.yaml", "one", seed=7)
    done = cli(folder, "merge", "one/rlmerge.lock.yaml", "-o", "two", "--seed", "0")
    assert (done.returncode, "the lock fixes seed at 7, but 0 is asked for" in done.stderr) == (2, True)
    with pytest.raises(RequestError, match="the lock fixes out_dtype at None, but float16 is asked for"):
        rlmerge.merge("one/rlmerge.lock.yaml", "two", out_dtype="float16")
    shutil.rmtree("e0")
    shutil.copytree("e1", "e0")
    for verb in ("plan", "merge"):
        done = cli(folder, verb, "one/rlmerge.lock.yaml", "-o", "two")
        assert done.returncode == 2
        assert "error: e0: holds other values than those that were merged" in done.stderr
        assert "Restore what was merged then" in done.stderr
    assert not Path("two").exists()


def test_a_method_is_listed_and_an_unknown_name_is_no_attribute():
    assert set(rlmerge.__all__) <= set(dir(rlmerge)) | set(rlmerge._HOMES)
    for name in rlmerge.__all__:
        assert getattr(rlmerge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'megre'"):
        rlmerge.megre  # noqa: B018
