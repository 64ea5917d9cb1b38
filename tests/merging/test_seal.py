"""The files beside the weights."""

import json

import numpy as np
import pytest
import yaml

import rlmerge
from rlmerge.errors import RecipeError
from support.models import write_model

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def base(tmp_path):
    config = {"model_type": "llama", "torch_dtype": "bfloat16"}
    folder = write_model(tmp_path / "base", {"w": np.ones(4)}, "bfloat16", config)
    files = {
        "generation_config.json": '{"eos_token_id": [1, 2]}',
        "tokenizer.json": '{"model": {"type": "WordLevel", "vocab": {"ü": 0}}, "added_tokens": []}',
        "chat_template.jinja": "old",
        "additional_chat_templates/tools.jinja": "tools",
        "modeling_custom.py": "raise SystemExit",
        "training_args.bin": "pickle",
        "README.md": "# Base",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    write_model(tmp_path / "e0", {"w": np.full(4, 2.0)}, "bfloat16")
    return folder


def merge(base, out="out", **more):
    options = {name: more.pop(name) for name in ("out_dtype", "dtype", "seed", "rounding") if name in more}
    recipe = {"merge_method": "ties", "base_model": str(base), "models": [{"model": str(base.parent / "e0")}]} | more
    rlmerge.merge(recipe, base.parent / out, **options)
    return base.parent / out


def test_side_files_are_copied_byte_for_byte_and_code_is_not(base):
    out = merge(base)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
                 "additional_chat_templates/tools.jinja"):  # fmt: skip
        assert (out / name).read_bytes() == (base / name).read_bytes()
    made = {"model.safetensors", "README.md", "rlmerge.lock.yaml", "MANIFEST.json"}
    assert {path.name for path in out.iterdir()} == made | {
        "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "additional_chat_templates",
    }  # fmt: skip
    assert (out / "README.md").read_text() != "# Base"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_configuration_says_what_type_was_written(base, key):
    (base / "config.json").write_text(json.dumps({"model_type": "llama", key: "bfloat16", "name": "ü", "eps": 1e-06}))
    config = json.loads((merge(base, out_dtype="float32") / "config.json").read_text())
    assert config == {"model_type": "llama", key: "float32", "name": "ü", "eps": 1e-06}


def test_a_chat_template_of_the_recipe(base):
    out = merge(base, chat_template=TEMPLATE)
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    assert rlmerge.verify(out).ok


def test_the_lock_says_all_that_decides_the_bytes(base):
    lock = yaml.safe_load((merge(base, seed=4, rounding="stochastic") / "rlmerge.lock.yaml").read_text())
    assert lock["rlmerge_lock"] == 1
    assert lock["recipe"]["merge_method"] == "ties"
    assert (lock["options"]["seed"], lock["options"]["rounding"]) == (4, "stochastic")
    assert [entry["model"] for entry in lock["inputs"]] == [str(base), str(base.parent / "e0")]
    assert all(len(entry["fingerprint"]) == 32 for entry in lock["inputs"])
    assert lock["versions"]["rlmerge"] == rlmerge.__version__


def test_nothing_in_a_directory_depends_on_the_time(base):
    assert (merge(base, "a") / "MANIFEST.json").read_bytes() == (merge(base, "b") / "MANIFEST.json").read_bytes()


def again(base, lock, out="again"):
    return rlmerge.merge(lock, base.parent / out)


def test_a_lock_fixes_the_files_beside_the_weights(base):
    lock = merge(base) / "rlmerge.lock.yaml"
    assert again(base, lock, "same").out.is_dir()
    (base / "chat_template.jinja").write_text("new")
    with pytest.raises(RecipeError, match=r"chat_template\.jinja: is another file than the one that was merged"):
        again(base, lock)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(RecipeError, match=r"chat_template\.jinja: is missing, but was there"):
        again(base, lock)
    assert not (base.parent / "again").exists()


def test_a_lock_fixes_every_weight_even_where_the_fingerprint_samples(base, monkeypatch):
    """Of large models the fingerprint is one of samples; what was read is compared as a whole."""
    monkeypatch.setattr("rlmerge.checkpoint.fingerprint.WHOLE", 0)
    weights = np.ones(60_000)
    write_model(base, {"w": weights}, "float32", {"model_type": "llama"})
    write_model(base.parent / "e0", {"w": 2 * weights}, "float32")
    lock = merge(base) / "rlmerge.lock.yaml"
    changed = 2 * weights
    changed[7_000] = 3  # byte 28,000: between the sampled blocks
    write_model(base.parent / "e0", {"w": changed}, "float32")
    with pytest.raises(RecipeError, match="e0: holds other values than those that were merged"):
        again(base, lock)
    assert not (base.parent / "again").exists()
    assert not (base.parent / ".again.partial").exists()


def test_digests_of_what_was_read_do_not_depend_on_workers_or_memory(base):
    write_model(base, {"w": np.ones((500, 700))}, "float32", {"model_type": "llama"})
    write_model(base.parent / "e0", {"w": np.full((500, 700), 2.0)}, "float32")
    recipe = {"merge_method": "ties", "base_model": str(base), "models": [{"model": str(base.parent / "e0")}]}
    locks = []
    for number, (workers, memory) in enumerate([(1, "512MiB"), (3, "32MiB")]):
        out = base.parent / f"out{number}"
        rlmerge.merge(recipe, out, workers=workers, memory=memory)
        locks.append((out / "rlmerge.lock.yaml").read_bytes())
    assert locks[0] == locks[1]
