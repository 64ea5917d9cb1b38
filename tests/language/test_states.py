import numpy as np
import pytest

from rlmerge.errors import CheckpointError, RequestError
from support.models import write_model

torch = pytest.importorskip("torch")
from rlmerge.language.states import mean_states  # noqa: E402
from support.dense import make_dense  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_dense(tmp_path_factory.mktemp("states") / "model")


def test_the_first_layer_gets_the_embedding(model):
    import transformers

    seen = []
    found = mean_states(model, ["a", "b c"], device="cpu", advance=seen.append)
    assert (found.shape, found.dtype, seen) == ((2, 2, 16), np.float64, [1, 1])
    table = transformers.AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight.detach().numpy()
    np.testing.assert_allclose(found[0, 0], table[1], rtol=1e-6)
    # a mean of two in float64 of float32 numbers
    np.testing.assert_allclose(found[1, 0], (table[2].astype(float) + table[3]) / 2, rtol=1e-6)


def test_prompts_do_not_touch_each_other(model):
    together = mean_states(model, ["a b c d", "e"], device="cpu")
    assert np.array_equal(together[1], mean_states(model, ["e"], device="cpu")[0])


def test_what_cannot_be_run(model, tmp_path):
    with pytest.raises(RequestError, match="has no tokens"):
        mean_states(model, [" "], device="cpu")
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        mean_states(write_model(tmp_path / "m", {"w": [1.0]}), ["a"], device="cpu")
