"""Output heads: redundant only where their bytes are the embedding's in every model."""

import pytest

import rlmerge
from support.adapters import MADE
from support.merges import config_of, merge, plan, write

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
ADD = "{merge_method: task_arithmetic, base_model: $/base, models: [$/expert]}"
E = [[1, 2], [3, 4], [5, 6]]
MOVED = [[1, 2], [3, 4.5], [5, 6]]
OWN = [[1, 2], [3, 4], [5, 7]]


def model(embedding, head=None):
    return {EMBED: embedding, "model.norm.weight": [1, 1]} | ({} if head is None else {HEAD: head})


@pytest.mark.parametrize("base_head", [None, E], ids=["base-without", "base-with"])
@pytest.mark.parametrize("expert_head", [None, MOVED], ids=["expert-without", "expert-with"])
def test_a_copy_of_the_embedding_is_dropped(tmp_path, base_head, expert_head):
    write(tmp_path, config=TIED, base=model(E, base_head), expert=model(MOVED, expert_head))
    merged, result = merge(tmp_path, ADD)
    assert merged == model(MOVED)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert not any("head" in warning for warning in result.warnings)


@pytest.mark.parametrize("base_head", [None, E], ids=["base-without", "base-with"])
@pytest.mark.parametrize("expert_config", [TIED, UNTIED], ids=["tied", "untied"])
def test_one_expert_with_weight_1_is_reproduced(tmp_path, base_head, expert_config):
    """transformers loads such an expert untied; a merge without its head would lose it."""
    write(tmp_path, config=TIED, base=model(E, base_head))
    write(tmp_path, config=expert_config, expert=model(MOVED, OWN))
    merged, result = merge(tmp_path, ADD)
    assert merged == model(MOVED, OWN)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    (said,) = [warning for warning in result.warnings if "output heads" in warning]
    assert f"{tmp_path}/expert" in said
    assert "tie_word_embeddings: false" in said


def test_a_head_of_one_expert_is_averaged_with_the_embedding_of_another(tmp_path):
    """Heads: 7 of one expert, and of the other its embedding, 6: (7 + 6) / 2."""
    write(tmp_path, config=TIED, base=model(E), a=model(E, OWN), b=model(MOVED))
    weights = "parameters: {weight: 0.5}"
    text = f"{{merge_method: task_arithmetic, base_model: $/base, models: [$/a, $/b], {weights}}}"
    merged, _ = merge(tmp_path, text)
    assert merged[HEAD] == [[1, 2], [3, 4.25], [5, 6.5]]
    assert merged[EMBED] == [[1, 2], [3, 4.25], [5, 6]]
    # The same of models without a base, whichever comes first.
    for first, second in ("ab", "ba"):
        merged, _ = merge(
            tmp_path, f"{{merge_method: linear, models: [$/{first}, $/{second}]}}", out=f"{first}{second}"
        )
        assert merged[HEAD] == [[1, 2], [3, 4.25], [5, 6.5]]
        assert config_of(tmp_path / f"{first}{second}")["tie_word_embeddings"] is False


def test_untied_models_keep_their_heads_even_where_they_equal_the_embedding(tmp_path):
    write(tmp_path, config=UNTIED, base=model(E, E), expert=model(MOVED, MOVED))
    merged, _ = merge(tmp_path, ADD)
    assert merged == model(MOVED, MOVED)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False


def test_a_tied_expert_of_an_untied_base_has_its_embedding_as_head(tmp_path):
    write(tmp_path, config=UNTIED, base=model(E, OWN))
    write(tmp_path, config=TIED, expert=model(MOVED))
    assert merge(tmp_path, ADD)[0] == model(MOVED, MOVED)


def test_a_base_whose_own_head_broke_the_tie(tmp_path):
    """The base stores another head under a tied configuration; the expert's is its embedding."""
    write(tmp_path, config=TIED, base=model(E, OWN), expert=model(E))
    merged, _ = merge(tmp_path, ADD)
    assert merged == model(E, E)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False


def test_a_copy_stored_in_another_type_is_a_head_of_its_own(tmp_path):
    """2.001 in float32 is 2 in bfloat16: the tie is lost where the expert stores both in float32."""
    write(tmp_path, "bfloat16", TIED, base=model(E))
    write(tmp_path, "float32", TIED, expert=model(E, [[1, 2.001], [3, 4], [5, 6]]))
    job = plan(tmp_path, ADD).jobs[HEAD]
    assert job.output.dtype.name == "float32"
    assert job.base is not None
    assert job.base.dtype.name == "bfloat16"


def test_the_models_of_a_slice_lend_their_heads(tmp_path):
    layers = {f"model.layers.{i}.w": [float(i)] for i in range(2)}
    config = TIED | {"num_hidden_layers": 2}
    write(tmp_path, config=config, a=model(E) | layers, b=model(MOVED, OWN) | layers)
    text = """{merge_method: passthrough, slices: [
        {sources: [{model: $/a, layer_range: [0, 1]}]}, {sources: [{model: $/b, layer_range: [0, 2]}]}]}"""
    merged, _ = merge(tmp_path, text)
    assert (merged[EMBED], merged[HEAD]) == (E, OWN)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False


def test_models_that_all_tie_their_heads_stay_tied_with_the_first_slices_embedding(tmp_path):
    layers = {f"model.layers.{i}.w": [float(i)] for i in range(2)}
    write(tmp_path, config=TIED | {"num_hidden_layers": 2}, a=model(E) | layers, b=model(MOVED) | layers)
    text = """{merge_method: passthrough, slices: [
        {sources: [{model: $/a, layer_range: [0, 1]}]}, {sources: [{model: $/b, layer_range: [0, 2]}]}]}"""
    merged, _ = merge(tmp_path, text)
    assert merged[EMBED] == E
    assert HEAD not in merged
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True


def test_an_adapter_that_trained_the_tables_apart_is_one_warning():
    base, adapter = MADE / "llama" / "base", MADE / "llama" / "embed"
    recipe = {"merge_method": "task_arithmetic", "base_model": str(base), "models": [f"{base}+{adapter}"]}
    said = [warning for warning in rlmerge.plan(recipe).warnings if "tie" in warning or "lm_head" in warning]
    assert len(said) == 1 and "trained the two tied embeddings apart" in said[0]


def test_a_configuration_that_ties_what_the_weights_do_not_is_no_other_warning(tmp_path):
    write(tmp_path, config=TIED, base=model(E))
    write(tmp_path, config=UNTIED, expert=model(MOVED, OWN))
    said = [warning for warning in plan(tmp_path, ADD).warnings if "tie_word_embeddings" in warning]
    assert len(said) == 1 and said[0].startswith("output heads that differ")
