"""mergekit's command-line options: its commands run unchanged."""

import click
import pytest

from rlmerge.errors import RequestError


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
        ("--out-shard-size 5X", "is not a size"),
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
