"""Whatever is wrong with an input: one message with what, where and the next step, and nothing left behind."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from rlmerge import merge
from rlmerge.errors import RequestError
from support.family import cli, tree
from support.models import read_model, write_model

BASE = {
    "model.embed_tokens.weight": np.linspace(-1, 1, 12).reshape(4, 3),
    "model.layers.0.w": np.linspace(0.5, 2, 6).reshape(2, 3),
    "model.steps": np.arange(3),
}
W = "model.layers.0.w"


def changed(**tensors):
    """The base with other tensors; names are written with ``_`` for the dots."""
    return BASE | {W: BASE[W] * 1.5} | tensors


def with_w(values):
    return changed(**{W: values})


@pytest.fixture
def models(tmp_path):
    """``base`` and ``good``, an expert of it, in float32."""
    write_model(tmp_path / "base", BASE)
    write_model(tmp_path / "good", changed())
    return tmp_path


def refused(folder: Path, *arguments, code=2, left: set[str] | None = None, **environment) -> str:
    """Run a merge into ``out`` that must fail and leave nothing but ``left`` behind; what it says."""
    before = set(tree(folder))
    done = cli(folder, "merge", "--method", "task_arithmetic", "--base", "base", *arguments, "-o", "out", **environment)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert not (folder / "out").exists()
    assert set(tree(folder)) - before == (left or set())
    assert left or not (folder / ".out.partial").exists()
    return done.stderr


def accepted(folder: Path, *arguments, base="base"):
    """Run a merge; its tensors and its JSON."""
    done = cli(folder, "merge", "--method", "task_arithmetic", "--base", base, *arguments, "-o", "out",
               "--format", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return read_model(folder / "out"), json.loads(done.stdout)


def test_another_shape(models):
    write_model(models / "bad", with_w(np.ones((3, 2))))
    assert refused(models, "good", "bad") == (
        f"error: bad: {W}: shape [3, 2] differs from [2, 3] in base\n"
        "  These models are not of one architecture and size; they cannot be merged.\n"
    )


def test_another_vocabulary(models):
    write_model(models / "bad", changed(**{"model.embed_tokens.weight": np.ones((5, 3))}))
    message = refused(models, "bad")
    assert "bad: its vocabulary tables have 5 rows, those of base 4, and nothing says which token" in message
    assert "Put the tokenizer files of both models beside their weights" in message


def test_another_element_type(models):
    write_model(models / "bad", changed(), "bfloat16")
    tensors, result = accepted(models, "bad")
    assert tensors[W].dtype == np.float32
    assert result["warnings"][0].startswith("models store 2 tensors ('model.embed_tokens.weight', ")
    assert "as bfloat16 and float32; merged tensors get the widest of these types" in result["warnings"][0]
    shutil.rmtree(models / "out")
    tensors, _ = accepted(models, "bad", "--dtype", "float32")
    np.testing.assert_array_equal(tensors[W], changed()[W].astype("bfloat16").astype(np.float32))


def test_every_mismatch_at_once(models):
    write_model(models / "bad", {W: np.ones((3, 2))})
    message = refused(models, "bad", "good")
    assert "bad: lacks 2 tensors ('model.steps', 'model.embed_tokens.weight') that other" in message
    assert f"bad: {W}: shape [3, 2] differs from [2, 3] in base" in message
    assert message.endswith("2 problems; nothing was written.\n")


def test_a_missing_tensor(models):
    write_model(models / "bad", {name: w for name, w in changed().items() if name != W})
    assert refused(models, "bad", "good") == (
        f"error: bad: lacks 1 tensor ('{W}') that other models of the recipe have\n"
        "  Merge models of one architecture and one layout.\n"
    )


def test_a_tensor_too_many_is_a_warning(models):
    write_model(models / "more", changed(**{"value_head.weight": np.ones(3)}))
    tensors, result = accepted(models, "more")
    assert "value_head.weight" not in tensors
    assert result["warnings"] == ["more holds 1 tensor ('value_head.weight') that base lacks; left out"]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "ram_plus", "slerp"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nan_and_infinity(models, value, method):
    """In a method that scans first as well as in one that does not."""
    weights = np.ones((2, 3))
    weights[1, :2] = value
    write_model(models / "bad", with_w(weights))
    density = ["-p", "density=0.5"] if method == "ties" else []
    message = refused(models, "bad", "--method", method, *density)
    file = models / "bad" / "model.safetensors"
    assert f"error: {file}: {W}: 2 values are not finite; the first is {value} at [1, 0]" in message
    assert "--on-nonfinite keep or zero" in message


def test_nan_in_the_base_names_the_base(models):
    write_model(models / "base", with_w(np.full((2, 3), np.nan)))
    assert f"{models / 'base' / 'model.safetensors'}: {W}: 6 values" in refused(models, "good")


def test_nan_far_into_a_tensor_and_in_a_number(models):
    for name in ("base", "good"):
        write_model(models / name, {"w": np.ones(200_000), "scale": np.ones(())})
    weights = np.ones(200_000)
    weights[[150_000, 199_999]] = np.nan
    write_model(models / "bad", {"w": weights, "scale": np.ones(())})
    assert "w: 2 values are not finite; the first is nan at [150000]" in refused(models, "good", "bad")
    write_model(models / "bad", {"w": np.ones(200_000), "scale": np.array(np.inf)})
    assert "scale: 1 values are not finite; the first is inf at []" in refused(models, "good", "bad")


def test_what_is_not_finite_passes_or_counts_as_zero_on_request(models):
    weights = 2 * BASE[W]
    weights[0, 0] = np.nan
    write_model(models / "bad", with_w(weights))
    kept, _ = accepted(models, "bad", "--on-nonfinite", "keep")
    expected = weights.astype(np.float32)
    np.testing.assert_array_equal(kept[W], expected)
    shutil.rmtree(models / "out")
    zeroed, _ = accepted(models, "bad", "--on-nonfinite", "zero")
    expected[0, 0] = 0
    # b + (x − b) has the rounding of one addition.
    np.testing.assert_allclose(zeroed[W], expected, rtol=2e-7, atol=1e-7)


def test_a_merge_that_overflows_its_output_type(models):
    for name in ("big", "bigger"):
        write_model(models / name, with_w(np.full((2, 3), 60_000.0)))
    message = refused(models, "big", "bigger", "--out-dtype", "float16", "--quiet")
    assert message == (
        f"error: {W}: the merged tensor overflows float16\n"
        "  Set --out-dtype bfloat16 or float32, or use smaller coefficients.\n"
    )


def test_integers_that_differ(models):
    write_model(models / "bad", changed(**{"model.steps": np.array([0, 1, 9])}))
    message = refused(models, "good", "bad")
    assert f"{models / 'bad' / 'model.safetensors'}: model.steps: differs from {models / 'base'}" in message
    assert "int64 tensors are copied, not merged" in message


def test_an_output_that_exists_is_found_while_planning(models):
    (models / "out").mkdir()
    (models / "out" / "config.json").write_text("{}")
    for verb in ("merge", "plan"):
        done = cli(models, verb, "--method", "ties", "--base", "base", "good", "-o", "out")
        assert done.returncode == 2
        assert done.stderr == (
            f"error: {models / 'out'}: the output directory exists\n"
            "  Choose another output directory, or replace it with --force.\n"
        )
    done = cli(models, "merge", "--method", "ties", "--base", "base", "good", "-o", "out", "--force")
    assert done.returncode == 0, done.stderr
    assert (models / "out" / "MANIFEST.json").exists()


def test_an_old_output_survives_a_replacement_that_fails(models):
    accepted(models, "good")
    before = tree(models / "out")
    write_model(models / "bad", with_w(np.full((2, 3), np.nan)))
    done = cli(models, "merge", "--method", "ties", "--base", "base", "bad", "-o", "out", "--force")
    assert done.returncode == 2
    assert tree(models / "out") == before
    assert not (models / ".out.partial").exists()


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("good", "is good, an input of the merge"),
        ("link", "is good, an input of the merge"),
        ("good/merged", "lies inside good, an input of the merge"),
        ("base/a/b", "lies inside base, an input of the merge"),
        (".", "holds base, an input of the merge"),
    ],
)
def test_an_output_among_the_inputs(models, out, what):
    (models / "link").symlink_to("good")
    before = tree(models)
    done = cli(models, "merge", "--method", "ties", "--base", "base", "good", "-o", out, "--force")
    assert done.returncode == 2
    assert what in done.stderr
    assert "Choose an output directory apart from the inputs." in done.stderr
    assert tree(models) == before


@pytest.fixture
def ordinary_folder():
    """A folder that every user may enter, unlike pytest's own; permissions bind while the test runs, also for root."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="rlmerge-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_model(folder / "base", BASE)
        (folder / "base" / "model.safetensors").chmod(0o644)
        (folder / "locked").mkdir(mode=0o555)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        asked = {"merge_method": "linear", "models": [{"model": str(folder / "base")}]}
        merge(asked, folder / "before")  # imports what an ordinary user may not be able to read
        if root:
            os.seteuid(65534)
        yield folder, asked
        if root:
            os.seteuid(0)


def test_an_output_that_may_not_be_written(ordinary_folder):
    folder, asked = ordinary_folder
    with pytest.raises(RequestError) as caught:
        merge(asked, folder / "locked" / "a" / "out")
    assert str(caught.value) == (
        f"{folder}/locked/a/out: the output cannot be created there (no permission to write to {folder}/locked)\n"
        "  Choose an output directory that you may write to."
    )
    assert caught.value.exit_code == 2


def test_a_model_that_may_not_be_read(ordinary_folder):
    folder, asked = ordinary_folder
    merge(asked, folder / "open" / "out")
    os.seteuid(0) if os.getuid() == 0 else None
    (folder / "base" / "model.safetensors").chmod(0o000)
    os.seteuid(65534) if os.getuid() == 0 else None
    with pytest.raises(RequestError, match=r"base/model.safetensors: may not be read \(permission denied\)"):
        merge(asked, folder / "open" / "other")
    assert [path.name for path in (folder / "open").iterdir()] == ["out"]


def test_an_output_below_a_file(models):
    done = cli(models, "merge", "--method", "linear", "good", "-o", "base/config.json/out")
    assert done.returncode == 2
    assert "lies inside" not in done.stderr
    assert f"the output cannot be created there ({models}/base/config.json is not a directory)" in done.stderr


def test_small_models_need_little_memory_whatever_the_workers(models):
    experts = ["good"] * 18
    done = cli(models, "merge", "--method", "ties", "-p", "density=0.5", "--base", "base", *experts, "-o", "out",
               "--memory", "32MiB", "--workers", "16")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_too_little_disk_is_known_beforehand(models, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(RequestError, match="but only 10 are free there\n  Free some space") as caught:
        merge({"merge_method": "linear", "models": [{"model": str(models / "good")}]}, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert not (tmp_path / ".out.partial").exists()


def test_a_statistics_cache_that_cannot_be_written_or_read(models, tmp_path):
    flags = ["good", "--method", "ties", "-p", "density=0.5"]
    (tmp_path / "file").write_text("in the way")
    for cache in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / "fine", tmp_path / "fine"):
        done = cli(models, "merge", "--base", "base", *flags, "-o", "out", XDG_CACHE_HOME=str(cache))
        assert done.returncode == 0, done.stderr
        shutil.rmtree(models / "out")
        for archive in (tmp_path / "fine").rglob("*.npz"):
            archive.write_bytes(b"")


def test_tied_models_never_get_an_output_head(models):
    tied = {"model_type": "llama", "tie_word_embeddings": True}
    head = {"lm_head.weight": BASE["model.embed_tokens.weight"]}
    write_model(models / "base", BASE | head, config=tied)
    write_model(models / "good", changed() | head, config=tied)
    write_model(models / "headless", changed(), config=tied)
    for experts in (["good"], ["headless", "good"]):
        tensors, result = accepted(models, *experts)
        assert set(tensors) == set(BASE)
        assert result["warnings"] == []
        shutil.rmtree(models / "out")
    tensors, result = accepted(models, "good", base="headless")
    assert set(tensors) == set(BASE)
    shutil.rmtree(models / "out")
    untied = {"model_type": "llama", "tie_word_embeddings": False}
    write_model(models / "own", changed() | {"lm_head.weight": np.zeros((4, 3))}, config=untied)
    tensors, result = accepted(models, "own", base="headless")
    assert np.count_nonzero(tensors["lm_head.weight"]) == 0
    assert "output heads that differ from the embedding: own; 'lm_head.weight' is merged" in result["warnings"][0]
    assert json.loads((models / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_tied_matrix_stored_under_the_heads_name_is_kept(models):
    tied = {"model_type": "gpt2", "tie_word_embeddings": True}
    for name, factor in (("base", 1), ("good", 2)):
        write_model(models / name, {"lm_head.weight": factor * BASE["model.embed_tokens.weight"]}, config=tied)
    tensors, _ = accepted(models, "good")
    assert set(tensors) == {"lm_head.weight"}


@pytest.mark.parametrize("count", [1, 12])
def test_one_expert_and_twelve(models, count):
    tensors, result = accepted(models, *["good"] * count, "-p", f"weight={1 / count}")
    # K additions of K-th parts: K roundings of at most 2^-24 relative to a sum below 1.
    np.testing.assert_allclose(tensors[W], BASE[W] * 1.5, atol=count * 2.0**-24)
    assert [expert["changed"] for expert in result["experts"]] == [6] * count
    unique = 6 if count == 1 else 0
    assert [expert["unique"] for expert in result["experts"]] == [unique] * count


def test_an_expert_that_is_the_base(models):
    write_model(models / "same", BASE)
    tensors, result = accepted(models, "good", "same")
    np.testing.assert_array_equal(tensors[W], (BASE[W] * 1.5).astype(np.float32))
    assert [expert["name"] for expert in result["experts"]] == ["good"]
    what = "same is the base itself (equal weights): it has no task vector, so it is left out"
    assert result["warnings"] == [what]
    shutil.rmtree(models / "out")
    _, result = accepted(models, "same")
    assert (result["experts"][0]["changed"], result["experts"][0]["survival"]) == (0, None)
    assert result["warnings"] == ["same does not differ from the base"]


def test_numbers_and_empty_tensors(models):
    for name, value in (("base", 1.0), ("good", 3.0)):
        write_model(models / name, {"scale": np.array(value), "none": np.zeros((0, 3)), "one": np.array([value])})
    tensors, result = accepted(models, "good", "-p", "lambda=0.5")
    assert (float(tensors["scale"]), tensors["one"].tolist(), tensors["none"].shape) == (2.0, [2.0], (0, 3))
    assert result["tensors"] == 3


def test_only_an_empty_tensor(models):
    for name in ("base", "good"):
        write_model(models / name, {"none": np.zeros((0, 3))})
    tensors, _ = accepted(models, "good", "--method", "ties", "-p", "density=0.5")
    assert tensors["none"].shape == (0, 3)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "linear", "dare_linear", "ram_plus", "sce", "breadcrumbs"])
def test_infinities_that_all_models_share_are_kept_by_every_method(tmp_path, name):
    """A causal mask of -inf, equal everywhere, and one entry of -inf among weights that were trained."""
    mask = np.triu(np.full((8, 8), -np.inf), 1)
    start = np.arange(1.0, 17.0).reshape(4, 4)
    start[1, 2] = -np.inf
    tuned = start.copy()
    tuned[0, 0] += 1
    write_model(tmp_path / "base", {"mask": mask, W: start})
    write_model(tmp_path / "e0", {"mask": mask, W: tuned})
    recipe = {
        "merge_method": name,
        "base_model": str(tmp_path / "base"),
        "models": [{"model": str(tmp_path / "e0")}],
        "parameters": {"density": 1.0} if name in ("ties", "dare_linear") else {},
    }
    merge(recipe, tmp_path / "out", on_nonfinite="keep")
    found = read_model(tmp_path / "out")
    np.testing.assert_array_equal(found["mask"], mask)
    assert found[W][1, 2] == -np.inf
    assert np.isfinite(np.delete(found[W].ravel(), 6)).all()
