import json

import numpy as np
import pytest

from rlmerge.checkpoint import verify
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.transplant import transplant
from support.models import CONFIG, read_model, write_model
from support.tokenizers import write_tables, write_tokenizer

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def pair(tmp_path):
    """A model of tokens a, b, c in width 3, and a donor of c, a, n, m in width 2 whose n is c + 2 a."""
    rng = np.random.default_rng(0)
    config = {**CONFIG, "vocab_size": 4, "eos_token_id": 1, "torch_dtype": "bfloat16"}
    tensors = {EMBED: rng.standard_normal((4, 3)), HEAD: rng.standard_normal((4, 3)), "model.norm.weight": [1, 2, 3]}
    write_model(tmp_path / "model", tensors, "bfloat16", config)
    write_tokenizer(tmp_path / "model", ["a", "b", "c"], eos_token="b", generation={"eos_token_id": 1, "top_k": 3})
    c, a = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    donor = {EMBED: [c, a, c + 2 * a, -3 * c, c], HEAD: [a, c, -c, a + c, c]}
    write_model(tmp_path / "donor", donor, "float32", {**CONFIG, "vocab_size": 5})
    write_tokenizer(
        tmp_path / "donor", ["c", "a", "n"], ["m"], chat="hi", eos_token="m", generation={"eos_token_id": [3, 0]}
    )
    return tmp_path


def run(folder, **options):
    result = transplant(folder / "model", folder / "donor", folder / "out", **options)
    assert verify(folder / "out").ok
    return result, {name: x.astype(np.float64) for name, x in read_model(folder / "out").items()}


def rounded(values):
    import ml_dtypes

    return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def before(folder):
    return {name: x.astype(np.float64) for name, x in read_model(folder / "model").items()}


def test_shared_rows_are_kept_and_new_ones_are_sums(pair):
    result, found = run(pair, fill="omp", terms=2)
    old = before(pair)
    a, c = old[EMBED][0], old[EMBED][2]
    assert found[EMBED][:2].tolist() == [c.tolist(), a.tolist()]
    assert found[EMBED][2].tolist() == rounded(c + 2 * a).tolist()
    assert found[EMBED][3].tolist() == rounded(-3 * c).tolist()
    # Row 4 of the donor belongs to no token: the mean of the others, before they are rounded.
    np.testing.assert_allclose(found[EMBED][4], np.mean([c, a, c + 2 * a, -3 * c], axis=0), rtol=2**-8)
    # In the donor's head a and c change places, and with them what n and m are made of.
    a, c = old[HEAD][0], old[HEAD][2]
    assert found[HEAD][2].tolist() == rounded(-a).tolist()
    assert found[HEAD][3].tolist() == rounded(c + a).tolist()
    assert found["model.norm.weight"].tolist() == [1, 2, 3]
    assert (result.tokens, result.shared, result.made, result.rows) == (4, 2, 2, 5)


def test_identity_files(pair):
    run(pair)
    out = pair / "out"
    assert (out / "tokenizer.json").read_bytes() == (pair / "donor" / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").read_text() == "hi"
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (5, 3)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [3, 0]
    assert "2 tokens keep their rows; the rows of 2 new ones are sums" in (out / "README.md").read_text()


def test_the_most_similar_row(pair):
    _, found = run(pair, fill="nearest")
    old = before(pair)
    assert found[EMBED][2].tolist() == old[EMBED][0].tolist()
    assert found[EMBED][3].tolist() == old[EMBED][0].tolist()


def test_the_mean_and_zeros(pair):
    _, found = run(pair, fill="mean", pad_to_multiple_of=8)
    old = before(pair)[EMBED]
    assert found[EMBED].shape == (8, 3)
    np.testing.assert_allclose(found[EMBED][2:], np.tile((old[0] + old[2]) / 2, (6, 1)), rtol=2**-8)
    _, found = run(pair, fill="zero", force=True)
    assert found[EMBED][2:4].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_shards(pair):
    result, _ = run(pair, shard_size=40)
    assert result.bytes_written == sum(file.stat().st_size for file in (pair / "out").glob("*.safetensors"))
    assert (pair / "out" / "model.safetensors.index.json").exists()


def test_a_tied_donor_describes_the_head_by_its_embedding(pair):
    donor = read_model(pair / "donor")
    write_model(pair / "donor", {EMBED: donor[EMBED]}, config={**CONFIG, "vocab_size": 5, "tie_word_embeddings": True})
    _, found = run(pair, terms=2)
    old = before(pair)[HEAD]
    assert found[HEAD][2].tolist() == rounded(old[2] + 2 * old[0]).tolist()


def test_nothing_in_common(tmp_path):
    write_tokenizer(write_tables(tmp_path / "model", 1), ["a"])
    write_tokenizer(write_tables(tmp_path / "donor", 1), ["b"])
    with pytest.raises(CheckpointError, match=r"has no token of .*donor(?s:.*)--fill zero"):
        transplant(tmp_path / "model", tmp_path / "donor", tmp_path / "out")
    result = transplant(tmp_path / "model", tmp_path / "donor", tmp_path / "out", fill="zero")
    assert "only 0 of 1 tokens are known" in result.warnings[-1]


def test_a_model_without_an_embedding(tmp_path):
    write_tokenizer(write_model(tmp_path / "model", {"w": [1.0]}), ["a"])
    write_tokenizer(write_tables(tmp_path / "donor", 1), ["a"])
    with pytest.raises(CheckpointError, match="has no embedding"):
        transplant(tmp_path / "model", tmp_path / "donor", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("who", ["model", "donor"])
def test_a_tokenizer_that_is_missing(pair, who):
    (pair / who / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        transplant(pair / "model", pair / "donor", pair / "out")
    assert not list(pair.glob("*out*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fill": "ompp"}, "unknown fill 'ompp'(?s:.*)Did you mean 'omp'"),
        ({"terms": 0}, "at least 1"),
        ({"pad_to_multiple_of": 0}, "at least 1"),
    ],
)
def test_options(pair, options, message):
    with pytest.raises(RequestError, match=message):
        transplant(pair / "model", pair / "donor", pair / "out", **options)


def test_an_output_that_exists(pair):
    run(pair)
    with pytest.raises(RequestError, match="the output directory exists"):
        transplant(pair / "model", pair / "donor", pair / "out")
    with pytest.raises(RequestError, match="an input of the merge"):
        transplant(pair / "model", pair / "donor", pair / "donor", force=True)


def test_transformers_loads_it(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    for name, width, tokens in (("model", 8, ["a", "b", "c"]), ("donor", 12, ["c", "d", "a", "e"])):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(tokens), hidden_size=width, **shape, bos_token_id=0, eos_token_id=1
        )
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / name)
        write_tokenizer(tmp_path / name, tokens, eos_token=tokens[1])
    transplant(tmp_path / "model", tmp_path / "donor", tmp_path / "out")
    old, new = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("model", "out"))
    one, two = (transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("model", "out"))
    with torch.no_grad():
        before = old(torch.tensor([one("a c a").input_ids])).logits[0, :, [0, 2]]
        after = new(torch.tensor([two("a c a").input_ids])).logits[0, :, [2, 0]]
    # Text of shared tokens alone: the same rows, so the same numbers but for the order of sums.
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    assert new.generation_config.eos_token_id == two.eos_token_id == 1


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(pair, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    names = sorted(path.name for path in pair.iterdir())
    with pytest.raises(RequestError, match=r"this writes [0-9,]+ bytes, but only 100 are free there"):
        run(pair)
    assert sorted(path.name for path in pair.iterdir()) == names
