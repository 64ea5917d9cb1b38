"""What a command line asks for, without running it."""

import click
import pytest

from rlmerge.cli.request import read_requests
from rlmerge.errors import RequestError


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
        ("recipe.yaml --memory 5G", "is not a size"),
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
