import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import CheckpointError, RequestError, RunError  # noqa: E402
from rlmerge.evaluate.causal import encode_text, failures, load_causal, load_tokenizer, release_memory  # noqa: E402
from sensitivity import tiny  # noqa: E402

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


def test_a_prompt_without_tokens_is_refused():
    def silent(prompt, **_):
        return {"input_ids": []}

    with pytest.raises(RequestError, match=r"prompt ' ' has no tokens"):
        encode_text(silent, " ", "model", chat=False)


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
