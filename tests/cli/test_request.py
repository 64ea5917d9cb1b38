"""What a command line asks for, without running it."""

import click
import pytest
from click.testing import CliRunner

from rlmerge.cli.request import read_request, read_requests, request_options
from rlmerge.errors import RequestError

RECIPE = "merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters: {density: 0.5}\ndtype: bfloat16\n"


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """The recipe and options of a command line; raises what the reading raises."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def call(*arguments, read_with=read_request):
        read = []

        @click.command()
        @request_options
        def command(**request):
            read.append(read_with(request))

        result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
        if result.exception:
            raise result.exception
        return read[0]

    return call


def test_a_recipe_file_and_the_defaults(ask):
    recipe, options = ask("recipe.yaml")
    assert (recipe.method.name, recipe.origin, recipe.dtype) == ("ties", "recipe.yaml", "bfloat16")
    assert (options.memory, options.shard_size, options.seed) == (512 * 2**20, 5 * 10**9, 0)
    assert (options.rounding, options.on_nonfinite, options.workers) == ("nearest", "error", None)
    assert (options.resume, options.force, options.cache) == (False, False, True)


def test_every_option_arrives(ask):
    arguments = "recipe.yaml --memory 2GB --workers 3 --seed 7 --dtype fp32 --out-dtype torch.float16"
    arguments += " --rounding stochastic --shard-size 100MB --resume --force --on-nonfinite zero --no-cache"
    recipe, options = ask(*arguments.split())
    assert (options.memory, options.workers, options.seed, options.shard_size) == (2 * 10**9, 3, 7, 10**8)
    assert (options.rounding, options.on_nonfinite) == ("stochastic", "zero")
    assert (options.resume, options.force, options.cache) == (True, True, False)
    assert (recipe.dtype, recipe.out_dtype) == (options.dtype, options.out_dtype) == ("float32", "float16")
    assert "dtype: float32" in recipe.text


def test_flags_are_the_recipe_file(ask):
    from_flags, _ = ask("--method", "ties", "--base", "base", "a", "b", "-p", "density=0.5", "--dtype", "bf16")
    assert from_flags == ask("recipe.yaml")[0]


def test_options_may_follow_the_experts(ask):
    recipe, _ = ask("a", "b", "--method", "ties", "-p", "weight=0.5,0.3", "--base", "base", "-p", "lambda=2")
    assert recipe.values("x", 1)["weight"].tolist() == [0.5, 0.3]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("", "no recipe is given"),
        ("a.yaml b.yaml", "2 recipes are given"),
        ("a.yaml merged", "the output goes after -o: -o merged"),
        ("recipe.yaml --base b", "--base goes with --method"),
        ("recipe.yaml -p density=1", "-p goes with --method"),
        ("--method ties --base b a -p density", "write -p KEY=VALUE"),
        ("--method ties --base b a -p =1", "write -p KEY=VALUE"),
        ("--method ties --base b a -p weight=1 -p weight=2", "given twice"),
        ("recipe.yaml --memory 5G", "no size"),
        ("recipe.yaml --workers 0", "--workers"),
        ("recipe.yaml --seed -1", "--seed"),
        ("recipe.yaml --rounding up", "--rounding"),
    ],
)
def test_usage_errors(ask, arguments, what):
    with pytest.raises(click.UsageError) as caught:
        ask(*arguments.split())
    assert what in caught.value.format_message()


def test_a_wrong_type_names_its_flag(ask):
    with pytest.raises(RequestError) as caught:
        ask("recipe.yaml", "--out-dtype", "int8")
    assert caught.value.where == "--out-dtype"


STAGES = (
    "name: one\nmerge_method: linear\nmodels: [a, b]\n---\nmerge_method: linear\nmodels: [one, c]\ndtype: float16\n"
)


def test_the_recipes_of_a_file_in_order(ask, tmp_path):
    (tmp_path / "stages.yaml").write_text(STAGES)
    recipes, options = ask("stages.yaml", "--dtype", "fp32", "--seed", "4", read_with=read_requests)
    assert [(recipe.name, recipe.dtype) for recipe in recipes] == [("one", None), (None, "float32")]
    assert options.seed == 4
    with pytest.raises(RequestError, match="this holds 2 recipes"):
        ask("stages.yaml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--random-seed 7", {"seed": 7}),
        ("--random-seed 7 --seed 7", {"seed": 7}),
        ("--out-shard-size 5B", {"shard_size": 5 * 10**9}),
        ("--out-shard-size 500M", {"shard_size": 5 * 10**8}),
        ("--out-shard-size 12k", {"shard_size": 12_000}),
        ("--out-shard-size 4096", {"shard_size": 4096}),
        ("--out-shard-size 5GB", {"shard_size": 5 * 10**9}),
        ("-j 3", {"workers": 3}),
        ("--num-threads 3", {"workers": 3}),
        ("--cuda --low-cpu-memory --read-to-gpu --lazy-unpickle --copy-tokenizer --allow-crimes", {}),
        ("--trust-remote-code --clone-tensors --async-write --gpu-rich --multi-gpu -v -vv", {}),
        ("--no-cuda --write-model-card --safe-serialization --device cuda --write-threads 4", {}),
        ("--lora-merge-cache /tmp/x --transformers-cache /tmp/y --lora-merge-dtype float32", {}),
    ],
)
def test_mergekits_options_are_taken_without_a_word(ask, given, expected):
    recipe, options = ask("recipe.yaml", *given.split())
    _, plain = ask("recipe.yaml")
    assert {name for name in ("seed", "shard_size", "workers") if getattr(options, name) != getattr(plain, name)} == {
        name for name in expected if expected[name] != getattr(plain, name)
    }
    assert {name: getattr(options, name) for name in expected} == expected
    assert recipe.warnings == ()


@pytest.mark.parametrize(
    "given",
    ["--no-copy-tokenizer", "--no-safe-serialization", "--no-write-model-card", "--unsafe-truncate-embeddings"],
)
def test_those_that_ask_for_another_output_are_refused_aloud(ask, given):
    (warning,) = ask("recipe.yaml", given)[0].warnings
    assert warning.startswith(f"{given} is ignored")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("--random-seed 7 --seed 8", "--random-seed and --seed say different things"),
        ("--random-seed x", "--random-seed"),
        ("--out-shard-size 5X", "no size"),
        ("--out-shard-size 0B", "not a positive number"),
    ],
)
def test_what_they_cannot_mean(ask, given, what):
    with pytest.raises(click.UsageError) as caught:
        ask("recipe.yaml", *given.split())
    assert what in caught.value.format_message()


def test_a_lock_holds_against_mergekits_names_too(ask, tmp_path):
    lock = (
        "rlmerge_lock: 1\nrecipe: {merge_method: linear, models: [a]}\noptions: {seed: 3}\n"
        "inputs: [{model: a, fingerprint: f}]\nversions: {}\n"
    )
    (tmp_path / "rlmerge.lock.yaml").write_text(lock)
    assert ask("rlmerge.lock.yaml", "--random-seed", "3")[1].seed == 3
    with pytest.raises(RequestError, match="the lock fixes seed at 3, but 4 is asked for"):
        ask("rlmerge.lock.yaml", "--random-seed", "4")
