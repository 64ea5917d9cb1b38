from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.checkpoint.model import open_checkpoint  # noqa: E402
from rlmerge.checkpoint.sensitivity import load_sensitivity  # noqa: E402
from rlmerge.errors import CheckpointError, RequestError, RunError  # noqa: E402
from rlmerge.sensitivity import passes  # noqa: E402
from rlmerge.sensitivity.measurement import measure  # noqa: E402
from rlmerge.sensitivity.options import SensitivityOptions  # noqa: E402
from support import tiny  # noqa: E402

ROWS = [{"prompt": "1+1=", "response": "2"}, {"prompt": "a", "response": "bcd"}, {"prompt": "34", "response": "5-6 a"}]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"), tiny.llama())


def values(directory):
    """All stored tensors, read by the safetensors library."""
    from safetensors.numpy import load_file

    return {name: value for path in directory.glob("*.safetensors") for name, value in load_file(path).items()}


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def check_fisher(result, rows):
    """Against gradients of each row alone in float64; ``rows`` are the ids of prompt and response, end included."""
    reference = tiny.llama(dtype="float64")
    expected = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    for prompt, response in rows:
        logits = reference(input_ids=torch.tensor([prompt + response])).logits[0]
        places = range(len(prompt) - 1, len(prompt + response) - 1)
        loss = -torch.log_softmax(logits, -1)[places, response].sum()
        for name, gradient in zip(expected, torch.autograd.grad(loss, list(reference.parameters())), strict=True):
            expected[name] += gradient**2 / len(rows)
    found = values(result.out)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        # float64 gradients of weights stored in float32, squared and summed in float32 (unit round-off 6e-8).
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-6, atol=1e-6 * value.max().item())


def ids(text):
    """Token ids of characters and special tokens, as the vocabulary lists them."""
    parts = text.replace("<s>", "\0").replace("</s>", "\1")
    return [{"\0": 1, "\1": 2}.get(c) or tiny.VOCABULARY.index(c) for c in parts]


def test_writes_the_mean_squared_gradient_of_every_stored_tensor(model, data, tmp_path):
    result = measure(model, data, tmp_path / "fisher", SensitivityOptions(dtype="float64"))
    check_fisher(result, [(ids("<s>" + row["prompt"]), ids(row["response"] + "</s>")) for row in ROWS])
    assert result.record.eos_appended == 3


CHAT = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]


@pytest.mark.parametrize(
    ("row", "prompt", "response", "appended"),
    [
        ({"prompt": "1+1=", "response": "2</s>"}, "<s>1+1=", "2</s>", 0),
        ({"prompt": "1+1=", "response": "2"}, "<s>1+1=", "2</s>", 1),
        ({"text": "abc</s>"}, "<s>", "abc</s>", 0),
        ({"text": "abc"}, "<s>", "abc</s>", 1),
        ({"messages": CHAT}, "<s>? 1+1</s>  <s>a ", "2</s>", 0),
    ],
)
def test_no_sequence_ends_twice(tmp_path, row, prompt, response, appended):
    """The squares of a second end of sequence would be added to every tensor."""
    chatty = tiny.save(tmp_path / "model", tiny.llama(), chat=True)
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    options = SensitivityOptions(dtype="float64")
    result = measure(chatty, str(tmp_path / "data.jsonl"), tmp_path / "fisher", options)
    check_fisher(result, [(ids(prompt), ids(response))])
    assert result.record.eos_appended == appended
    assert result.record.tokens == len(ids(response))


def test_the_record_says_what_was_done(model, data, tmp_path):
    result = measure(model, data, tmp_path / "fisher", SensitivityOptions(max_length=6))
    stored = json.loads((result.out / "sensitivity.json").read_text())
    assert stored == {"format_version": 2, **json.loads(json.dumps(asdict(result.record)))}
    assert stored["model_digest"] == open_checkpoint(model).fingerprint()
    # "<s>1+1=2</s>" is one token too long, "<s>34" leaves room for three of six; "<s>a" and four fit.
    assert (stored["sequences"], stored["tokens"], stored["truncated"], stored["dropped"]) == (3, 1 + 4 + 3, 2, 0)
    assert stored["versions"]["torch"] == torch.__version__
    assert json.loads(json.dumps(result.to_dict()))["record"]["mode"] == "empirical"


def test_is_bitwise_reproducible_on_the_cpu(model, data, tmp_path):
    for options in ({"batch_size": 2}, {"mode": "true", "seed": 3, "samples": 2, "max_new_tokens": 6}):
        first = measure(model, data, tmp_path / "a", SensitivityOptions(**options, force=True))
        second = measure(model, data, tmp_path / "b", SensitivityOptions(**options, force=True))
        assert contents(first.out) == contents(second.out)


@pytest.mark.parametrize("tied", [False, True])
def test_streaming_layers_changes_nothing_but_the_passes(tied, data, tmp_path):
    model = tiny.save(tmp_path / "model", tiny.llama(tied=tied, layers=3))
    options = {"gram": True, "batch_size": 2, "shard_size": 10_000}
    whole = measure(model, data, tmp_path / "whole", SensitivityOptions(**options))
    parts = measure(model, data, tmp_path / "parts", SensitivityOptions(**options, stream_layers=True))
    assert whole.passes == 1 and parts.passes >= 3
    assert len(list(parts.out.glob("*.safetensors"))) > 1
    assert contents(whole.out) == contents(parts.out)


def test_gradient_checkpointing_changes_nothing(data, tmp_path):
    unsaved = tiny.llama(layers=3)
    unsaved.config.attention_dropout = 0.5
    model = tiny.save(tmp_path / "model", unsaved)
    plain = measure(model, data, tmp_path / "plain", SensitivityOptions(gram=True, batch_size=2))
    for batch_size in (1, 2):
        options = SensitivityOptions(gram=True, batch_size=batch_size, gradient_checkpointing=True)
        checkpointed = measure(model, data, tmp_path / f"{batch_size}", options)
        a, b = values(plain.out), values(checkpointed.out)
        for name in a:
            # Equal but for the order of float32 sums, which batch size 1 changes.
            np.testing.assert_allclose(b[name], a[name], rtol=0 if batch_size == 2 else 1e-4, atol=1e-6 * a[name].max())


def test_grams_are_paired_with_the_weights_they_belong_to(model, data, tmp_path):
    result = measure(model, data, tmp_path / "fisher", SensitivityOptions(gram=True))
    sensitivity = load_sensitivity(result.out, open_checkpoint(model))
    layer = "model.layers.0."
    assert sensitivity.grams[layer + "self_attn.v_proj.weight"].name == layer + "self_attn.q_proj.weight.gram"
    assert sensitivity.grams[layer + "mlp.down_proj.weight"].shape == (24, 24)
    # Positive semi-definite, up to the round-off of float32 sums.
    for info in sensitivity.grams.values():
        gram = values(result.out)[info.name].astype(np.float64)
        assert np.linalg.eigvalsh(gram).min() > -1e-5 * np.trace(gram)
    assert result.record.gram_tokens == sum(1 + len(row["prompt"]) + len(row["response"]) + 1 for row in ROWS)


def test_a_tied_head_is_measured_once_with_both_uses(data, tmp_path):
    model = tiny.save(tmp_path / "model", tiny.llama(tied=True))
    result = measure(model, data, tmp_path / "fisher")
    assert "lm_head.weight" not in values(result.out)
    assert load_sensitivity(result.out, open_checkpoint(model)).tensors.keys() == values(result.out).keys()


def test_rewarded_samples_are_counted(model, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("1+1=\nab\n")
    options = SensitivityOptions(mode="reward", reward="regex:[0-9]", samples=8, max_new_tokens=4, batch_size=8)
    record = measure(model, str(path), tmp_path / "fisher", options).record
    assert record.sampled == 16 and 0 < record.sequences < 16


def test_an_interrupted_run_resumes_to_the_same_bytes(model, data, tmp_path, monkeypatch):
    options = {"stream_layers": True, "gram": True}
    whole = measure(model, data, tmp_path / "whole", SensitivityOptions(**options))
    real, calls = passes.accumulate_squares, []

    def fails_in_the_third_pass(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise RunError("interrupted")
        return real(*args, **kwargs)

    monkeypatch.setattr(passes, "accumulate_squares", fails_in_the_third_pass)
    with pytest.raises(RunError, match="interrupted"):
        measure(model, data, tmp_path / "fisher", SensitivityOptions(**options))
    assert not (tmp_path / "fisher").exists()
    resumed = measure(model, data, tmp_path / "fisher", SensitivityOptions(**options, resume=True))
    assert len(calls) == 3 + whole.passes - 2
    assert contents(resumed.out) == contents(whole.out)


def leftovers(tmp_path):
    return [path.name for path in tmp_path.iterdir() if "fisher" in path.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, "cannot use device 'cuda:99'"),
        ({"device": "abacus"}, "cannot use device 'abacus'"),
        ({"max_length": 2}, "none of the 3 sequences has a response"),
        ({"mode": "reward", "reward": "regex:Z"}, "none of the 3 samples earned the reward"),
    ],
)
def test_bad_requests_leave_nothing_behind(model, data, tmp_path, options, message):
    with pytest.raises(RequestError, match=message):
        measure(model, data, tmp_path / "fisher", SensitivityOptions(**options))
    assert leftovers(tmp_path) == []


def test_chats_need_a_template(model, tmp_path):
    path = tmp_path / "chat.jsonl"
    messages = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    path.write_text(json.dumps({"messages": messages}))
    with pytest.raises(RequestError, match="no chat template"):
        measure(model, str(path), tmp_path / "fisher")
    assert leftovers(tmp_path) == []
    chat = tiny.save(tmp_path / "model", tiny.llama(), chat=True)
    assert measure(chat, str(path), tmp_path / "fisher").record.tokens == 2


def test_weights_that_overflow_are_an_error_and_leave_nothing(data, tmp_path):
    broken = tiny.llama()
    broken.lm_head.weight.data.mul_(1e25)
    model = tiny.save(tmp_path / "model", broken)
    with pytest.raises(RunError, match=r"not finite|the loss is"):
        measure(model, data, tmp_path / "fisher")
    assert leftovers(tmp_path) == []


def test_directories_transformers_cannot_load_are_refused(model, data, tmp_path):
    import shutil

    directory = shutil.copytree(model, tmp_path / "copy")
    (directory / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        measure(directory, data, tmp_path / "fisher")
    assert leftovers(tmp_path) == []
