import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RunError  # noqa: E402
from rlmerge.language.generation import draw_outputs, refuse_nan  # noqa: E402
from rlmerge.language.model import Causal, load_causal  # noqa: E402
from support import tiny  # noqa: E402

PROMPTS = [(1, 5, 9), (1, 20)]


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return load_causal(tiny.save(tmp_path_factory.mktemp("model"), tiny.llama()), torch.device("cpu"))


def by_hand(causal, prompt, draws, temperature):
    """One full forward pass a token, and the draw read off the cumulative probabilities."""
    ids = list(prompt)
    for draw in draws:
        with torch.no_grad():
            logits = causal.model(torch.tensor([ids])).logits[0, -1].double().numpy()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            weights = np.exp((logits - logits.max()) / temperature)
            token = int(np.searchsorted(weights.cumsum(), draw * weights.sum(), side="right"))
        ids.append(token)
        if token in causal.ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_each_row_is_drawn_by_its_own_numbers_whatever_is_beside_it(causal, temperature):
    draws = np.random.default_rng(3).random((2, 6))
    together = draw_outputs(causal, PROMPTS, draws, temperature)
    alone = [draw_outputs(causal, [p], draws[n : n + 1], temperature)[0] for n, p in enumerate(PROMPTS)]
    expected = [by_hand(causal, p, draws[n], temperature) for n, p in enumerate(PROMPTS)]
    assert together == alone == expected


def test_an_output_ends_with_its_first_end(causal):
    ends = Causal(causal.path, causal.model, causal.tokenizer, causal.device, tuple(range(2, 31)))
    outputs = draw_outputs(ends, PROMPTS, np.random.default_rng(0).random((2, 8)))
    assert all(not set(output[:-1]) & set(ends.ends) for output in outputs)
    assert any(len(output) < 8 for output in outputs)


def test_the_models_own_settings_come_back(causal):
    before = causal.model.generation_config
    draw_outputs(causal, PROMPTS, np.zeros((2, 1)))
    assert causal.model.generation_config is before


def test_logits_that_are_nan_name_the_model(causal, tmp_path):
    refuse_nan(False, tmp_path)
    with pytest.raises(RunError, match="logits are NaN") as error:
        refuse_nan(True, tmp_path)
    assert error.value.where == str(tmp_path)
