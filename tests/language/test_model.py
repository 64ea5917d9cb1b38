from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.checkpoint.model import open_checkpoint  # noqa: E402
from rlmerge.errors import CheckpointError, RequestError, RunError  # noqa: E402
from rlmerge.language.model import (  # noqa: E402
    failures,
    find_device,
    load_causal,
    load_tokenizer,
    match_parameters,
    release_memory,
)
from support import tiny  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    made = tiny.llama(dtype="bfloat16")
    made.generation_config.eos_token_id = [5, 2, 7]
    return tiny.save(tmp_path_factory.mktemp("model"), made)


def test_a_model_is_loaded_ready_to_be_asked(model):
    causal = load_causal(model, CPU)
    assert {parameter.dtype for parameter in causal.model.parameters()} == {torch.float32}
    assert not causal.model.training and not any(p.requires_grad for p in causal.model.parameters())
    # Every end of the model, and the tokenizer's, once.
    assert causal.ends == (5, 2, 7)
    assert load_causal(model, CPU, dtype="bfloat16").model.dtype == torch.bfloat16
    release_memory()


def test_what_cannot_be_loaded_is_named(model, tmp_path):
    with pytest.raises(CheckpointError, match="transformers cannot load it") as error:
        load_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_causal(tmp_path, CPU)
    # Pickles are never executed.
    torch.save(tiny.llama().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_causal(tmp_path, CPU)


@pytest.mark.parametrize(
    ("raised", "hint"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "smaller batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "smaller batch"),
        (MemoryError(), "smaller batch"),
        (IndexError("index out of range in self"), "exceed the model's positions"),
    ],
)
def test_failures_of_a_model_become_ours(tmp_path, raised, hint):
    with pytest.raises(RunError, match=hint) as error, failures(tmp_path):
        raise raised
    assert error.value.where == str(tmp_path) and error.value.__cause__ is raised


def test_our_own_errors_pass_unchanged(tmp_path):
    ours = RequestError("wrong")
    with pytest.raises(RequestError) as error, failures(tmp_path):
        raise ours
    assert error.value is ours


def test_the_hint_about_memory_is_the_callers(tmp_path):
    with pytest.raises(RunError, match="Try --stream-layers"), failures(tmp_path, "Try --stream-layers."):
        raise MemoryError


def test_devices():
    assert find_device("auto").type in ("cpu", "cuda")
    for name in ("cpuu", "cuda:99"):
        with pytest.raises(RequestError, match=f"cannot use device '{name}'"):
            find_device(name)


def stored(**shapes):
    tensors = {name: SimpleNamespace(shape=shape) for name, shape in shapes.items()}
    return SimpleNamespace(reference="model", tensors=tensors)


def shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}


def test_saved_models_match_name_by_name(tmp_path):
    model = tiny.llama()
    model.save_pretrained(tmp_path)
    matched, uncovered = match_parameters(model, open_checkpoint(tmp_path))
    assert list(matched.items()) == list(model.named_parameters()) and uncovered == ()


def test_both_stored_names_of_a_tied_weight_lead_to_one_parameter():
    model = tiny.llama(tied=True)
    matched, _ = match_parameters(model, stored(**shapes(model)))
    assert matched["lm_head.weight"] is matched["model.embed_tokens.weight"]


def test_a_backbones_checkpoint_lacks_the_prefix():
    model = tiny.llama(tied=True)
    names = {name.removeprefix("model."): shape for name, shape in shapes(model).items() if name != "lm_head.weight"}
    matched, _ = match_parameters(model, stored(**names))
    assert matched.keys() == names.keys()


def test_stored_constants_are_named_not_measured():
    model = tiny.llama()
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert match_parameters(model, stored(**shapes(model), **{name: (4,)}))[1] == (name,)


def test_tensors_and_parameters_without_partner_are_refused():
    model = tiny.llama()
    with pytest.raises(CheckpointError, match=r"tensor 'experts\.0' \(1 in all\) has no parameter"):
        match_parameters(model, stored(**shapes(model), **{"experts.0": (4,)}))
    with pytest.raises(CheckpointError, match=r"tensor 'lm_head\.weight' \(1 in all\) has no parameter"):
        match_parameters(model, stored(**{**shapes(model), "lm_head.weight": (4,)}))
    fewer = {name: shape for name, shape in shapes(model).items() if name != "lm_head.weight"}
    with pytest.raises(CheckpointError, match=r"parameter 'lm_head\.weight' \(1 in all\) is not in the checkpoint"):
        match_parameters(model, stored(**fewer))
