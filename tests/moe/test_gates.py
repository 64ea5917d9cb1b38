import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.moe.config import Expert
from rlmerge.moe.gates import embedding_states, prompt_rows, random_rows
from rlmerge.recipe.reference import ModelRef
from support.tokenizers import write_tables, write_tokenizer


def expert(positive, negative=()):
    return Expert(ModelRef("m"), tuple(positive), tuple(negative), 1.0, 0.0, "experts[0]")


KNOWN = {"x": [[3.0, 0.0], [0.0, 2.0]], "y": [[0.0, 4.0], [0.0, 0.0]], "z": [[0.0, 0.0], [5.0, 0.0]]}


def states(prompts):
    return np.array([KNOWN[text] for text in prompts])


def test_rows_by_hand():
    """Layer 0: mean of x and y is (1.5, 2), of length 2.5; layer 1: x - z is (-5, 2). The second expert is x alone."""
    found = prompt_rows([expert(["x", "y"]), expert(["x"], ["z"])], states)
    assert found.shape == (2, 2, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [[0.6, 0.8], [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [[0, 1], np.array([-5, 2]) / np.sqrt(29)], rtol=1e-6)


def test_each_prompt_is_read_once():
    asked = []

    def counting(prompts):
        asked.append(list(prompts))
        return states(prompts)

    prompt_rows([expert(["x", "y"]), expert(["y"], ["x"])], counting)
    assert asked == [["x", "y"]]


def test_no_direction():
    with pytest.raises(RequestError, match=r"experts\[0\]: positive and negative prompts of the expert have the same"):
        prompt_rows([expert(["x"], ["x"])], states)
    with pytest.raises(RequestError, match="the same mean"):  # zeros in the second layer
        prompt_rows([expert(["y"])], states)
    with pytest.raises(RequestError, match="not finite"):
        prompt_rows([expert(["x"])], lambda prompts: states(prompts) * np.nan)


def test_random_rows():
    found = random_rows("random", 8, 16, 64, 1)
    assert found.dtype == np.float32
    assert np.array_equal(found, random_rows("random", 8, 16, 64, 1))
    assert not np.array_equal(found, random_rows("random", 8, 16, 64, 2))
    # 8192 draws: within 4 deviations of mean and deviation
    assert abs(found.mean()) < 4 / np.sqrt(8192)
    assert abs(found.std() - 1) < 4 / np.sqrt(2 * 8192)


def test_uniform_rows_lie_within_the_bound():
    found = random_rows("uniform_random", 8, 16, 64, 1)
    assert np.abs(found).max() <= 1 / 8
    # a uniform number in ±1/8 has deviation 1 / (8 sqrt 3), known here to within 4 * 0.45 / sqrt(8192) of itself
    assert found.std() == pytest.approx(1 / (8 * np.sqrt(3)), rel=0.02)


def test_embeddings_of_prompts(tmp_path):
    """Row i of the table is (i, i + ½); special tokens and repeats count like any other."""
    write_tokenizer(write_tables(tmp_path / "base", 4), ["?", "a", "b", "c"])
    found = embedding_states(open_checkpoint(tmp_path / "base"), 3)(["a c", "b b a"])
    assert found.shape == (2, 3, 2)
    np.testing.assert_allclose(found[0], [[2, 2.5]] * 3)
    np.testing.assert_allclose(found[1], [[5 / 3, 5 / 3 + 0.5]] * 3)


def test_prompts_and_tokenizers_that_cannot_be_read(tmp_path):
    write_tokenizer(write_tables(tmp_path / "base", 2), ["?", "a", "b"])
    base = open_checkpoint(tmp_path / "base")
    with pytest.raises(CheckpointError, match="gives the id 2, but the embedding has 2 rows"):
        embedding_states(base, 1)(["b"])
    with pytest.raises(RequestError, match="has no tokens"):
        embedding_states(base, 1)([" "])
    (tmp_path / "base" / "tokenizer.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        embedding_states(base, 1)
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        embedding_states(base, 1)
