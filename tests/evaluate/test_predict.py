import math
from dataclasses import dataclass

import numpy as np
import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate import predict
from rlmerge.evaluate.predict import CausalPredictor, Output, TinyPredictor, divergence, entropy
from support.checkpoints import BASE, broken

RL = BASE.parent / "rl-rev"


@dataclass
class Rows:
    """Stands for a model: one next-token distribution at each position, whatever the outputs."""

    rows: np.ndarray
    xp = np

    def log_probabilities(self, outputs):
        with np.errstate(divide="ignore"):
            yield from np.log(self.rows)[:, None]


P = Rows(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
Q = Rows(np.array([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]))
OUTPUTS = [Output((8, 9, 10), (11, 1)), Output((8, 9), (12, 13, 14, 1)), Output((8, 9, 10), (11, 12))]


def test_entropy_is_the_mean_over_positions():
    # ln 2 and 0; 1.5 ln 2 twice.
    assert entropy(P, []) == pytest.approx(math.log(2) / 2, rel=1e-12)
    assert entropy(Q, []) == pytest.approx(1.5 * math.log(2), rel=1e-12)


def test_divergence_is_from_the_writer_to_the_other():
    # ½ ln(0.5 / 0.25) + 0, and ln(1 / 0.5).
    assert divergence(P, Q, []) == pytest.approx((0.5 * math.log(2) + math.log(2)) / 2, rel=1e-12)
    assert divergence(P, P, []) == 0
    # Q allows what P excludes.
    assert divergence(Q, P, []) == math.inf


def test_models_of_other_vocabulary_sizes_have_no_divergence():
    with pytest.raises(RequestError, match="predicts 3 tokens and the other 2"):
        divergence(P, Rows(np.full((2, 2), 0.5)), [])


def every(predictor, outputs):
    return np.concatenate([np.asarray(piece) for piece in predictor.log_probabilities(outputs)])


def reference(outputs, path=BASE):
    """Straight from transformers: whole logits of one sequence after the other."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    rows = []
    for output in outputs:
        with torch.no_grad():
            logits = model(torch.tensor([output.prompt + output.tokens])).logits[0].double()
        rows.append(torch.log_softmax(logits, -1)[len(output.prompt) - 1 : -1].numpy())
    return rows


def test_the_numpy_model_predicts_what_transformers_does():
    # Outputs of one shape come first, together.
    first, second, third = reference(OUTPUTS)
    expected = np.concatenate([first, third, second])
    # Logits of size 10 in float32, after three layers.
    np.testing.assert_allclose(every(TinyPredictor(BASE), OUTPUTS), expected, atol=2e-5)


@pytest.mark.parametrize("cells", [2**24, 3 * 32, 1])
def test_pieces_do_not_change_what_is_predicted(monkeypatch, cells):
    torch = pytest.importorskip("torch")
    whole = every(TinyPredictor(BASE), OUTPUTS)
    expected = np.concatenate(reference(OUTPUTS))
    monkeypatch.setattr(predict, "CELLS", cells)
    np.testing.assert_allclose(every(TinyPredictor(BASE), OUTPUTS), whole, atol=2e-5)
    causal = CausalPredictor.load(BASE, torch.device("cpu"))
    np.testing.assert_allclose(every(causal, OUTPUTS), expected, atol=2e-5)
    if cells == 3 * 32:
        # Three positions at a time, of which those inside the prompt are not handed out.
        assert [len(piece) for piece in causal.log_probabilities(OUTPUTS[:2])] == [1, 1, 2, 2]


def test_both_back_ends_measure_the_same():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    cpu = torch.device("cpu")
    tiny, large = [TinyPredictor(p) for p in (BASE, RL)], [CausalPredictor.load(p, cpu) for p in (BASE, RL)]
    assert entropy(large[0], OUTPUTS) == pytest.approx(entropy(tiny[0], OUTPUTS), abs=1e-5)
    assert divergence(*large, OUTPUTS) == pytest.approx(divergence(*tiny, OUTPUTS), abs=1e-5)
    assert divergence(*tiny, OUTPUTS) > 1e-3


def test_prompts_are_read_as_generators_read_them():
    assert TinyPredictor(BASE).encode("_$R", chat=False) == (0, 1, 29)
    with pytest.raises(RequestError, match="no chat template"):
        TinyPredictor(BASE).encode("_", chat=True)


def test_logits_that_are_nan_are_refused(tmp_path):
    model = broken(tmp_path)
    with pytest.raises(RunError, match="logits are NaN"):
        every(TinyPredictor(model), OUTPUTS)
    torch = pytest.importorskip("torch")
    with pytest.raises(RunError, match="logits are NaN"):
        every(CausalPredictor.load(model, torch.device("cpu")), OUTPUTS)
