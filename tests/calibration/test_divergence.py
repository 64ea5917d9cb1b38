import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.calibration.directions import Directions  # noqa: E402
from rlmerge.calibration.divergence import Merged, Voice, divergences  # noqa: E402
from rlmerge.calibration.experts import Target, hear  # noqa: E402
from rlmerge.calibration.groups import make_groups  # noqa: E402
from rlmerge.calibration.options import CalibrationOptions  # noqa: E402
from rlmerge.errors import RunError  # noqa: E402
from rlmerge.language.data import read_data  # noqa: E402
from rlmerge.language.model import find_device, load_causal  # noqa: E402
from rlmerge.language.tokens import TokenSequence  # noqa: E402

SEQUENCE = TokenSequence((0, 1), 1, "here")


def test_divergence_by_hand():
    """KL((1/2, 1/4, 1/4) ‖ (1/4, 1/4, 1/2)) = ½ log 2 + 0 − ¼ log 2."""
    target = Target(SEQUENCE, torch.tensor([[0, 1, 2]]), torch.tensor([[0.5, 0.25, 0.25]]).log(), None)
    found = divergences(torch.tensor([[0.25, 0.25, 0.5]]).log(), target)
    assert found.tolist() == [pytest.approx(0.25 * math.log(2), rel=1e-6)]


def test_tokens_that_are_not_told_apart_are_one_event():
    """The same with token 0 against the others: KL((1/2, 1/2) ‖ (1/4, 3/4)) = ½ log 2 + ½ log ⅔."""
    target = Target(SEQUENCE, torch.tensor([[0]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]).log())
    found = divergences(torch.tensor([[0.25, 0.25, 0.5]]).log(), target)
    assert found.tolist() == [pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-6)]


def test_fewer_tokens_told_apart_are_a_lower_bound():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(5, 30, generator=generator).double() * 2 for _ in range(2))
    bounds = []
    for top in (1, 3, 10, 30):
        logs, tokens = torch.log_softmax(ours, -1).topk(top, -1)
        rest = None if top == 30 else torch.log1p(-logs.exp().sum(-1))
        bounds.append(divergences(theirs, Target(SEQUENCE, tokens, logs, rest)).sum().item())
    assert bounds == sorted(bounds)
    whole = torch.nn.functional.kl_div(theirs.log_softmax(-1), ours.log_softmax(-1), log_target=True, reduction="sum")
    assert bounds[-1] == pytest.approx(whole.item())


@pytest.fixture
def merged(family):
    """The tiny base with random directions of two experts in float64, and what the base says of ten sums."""

    def make(**options):
        chosen = CalibrationOptions(dtype="float64", responses="given", sequences=8, held_out=2, **options)
        causal = load_causal(family / "base", find_device("cpu"), "float64")
        heard = hear(causal, read_data("plus.jsonl", 10, 0), chosen)
        rng = np.random.default_rng(0)
        parameters = dict(causal.model.named_parameters())
        base = {name: p.detach().numpy().astype(np.float32).ravel() for name, p in parameters.items()}
        changes = {n: rng.standard_normal((2, len(b))).astype(np.float32) * np.float32(0.1) for n, b in base.items()}
        directions = Directions("weight", base, changes, 0.0)
        groups = make_groups(changes, 2, False)
        return Merged(causal, parameters, directions, groups, chosen), Voice("plus", 2.0, heard.fitted), heard

    return make


def test_nothing_lies_between_a_model_and_itself(merged):
    model, voice, heard = merged()
    model.place(lambda name: np.zeros(2))
    assert model.divergence(voice) == pytest.approx(0, abs=1e-12)
    assert len(heard.fitted) == 8 and len(heard.held_out) == 2


@pytest.mark.parametrize("options", [{}, {"stream_gradients": True, "batch_size": 3}, {"top": 4}])
def test_slopes_are_those_of_finite_differences(merged, options):
    model, voice, _ = merged(**options)
    values = np.array([[0.3, -0.5, 0.2], [0.1, 0.4, -0.3]])
    objective, slopes = model.slope(values, [voice])
    model.place(model.grouped(values))
    assert objective == pytest.approx(2 * model.divergence(voice), rel=1e-9)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters.values())
    step = 1e-3
    for place in [(0, 0), (1, 1), (0, 2)]:
        ends = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * step
            ends.append(model.slope(moved, [voice])[0])
        # Central differences are off by step² times a third derivative; merged weights are rounded to float32.
        assert slopes[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=1e-4)


def test_batches_do_not_matter(merged):
    wide, voice, _ = merged(batch_size=8)
    narrow, _, _ = merged(batch_size=1)
    values = np.full((2, 3), 0.4)
    one, other = wide.slope(values, [voice]), narrow.slope(values, [voice])
    assert one[0] == pytest.approx(other[0], rel=1e-9)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5)


def test_what_is_no_number_is_an_error_that_names_the_expert(merged):
    model, voice, _ = merged()
    with pytest.raises(RunError, match="plus: the divergence is not finite"):
        model.slope(np.full((2, 3), np.nan), [voice])


def test_two_names_of_one_weight_are_moved_once(family):
    """A tied head stored twice has one gradient, which holds both uses."""
    from support import tiny

    model = tiny.llama(tied=True)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert parameters["lm_head.weight"] is parameters["model.embed_tokens.weight"]
    changes = {name: np.ones((1, p.numel()), np.float32) for name, p in parameters.items()}
    base = {name: p.detach().numpy().ravel() for name, p in parameters.items()}
    causal = load_causal(family / "base", find_device("cpu"))
    groups = make_groups(changes, 0, False)
    merged = Merged(causal, parameters, Directions("lambda", base, changes, 0.0), groups, CalibrationOptions())
    assert "model.embed_tokens.weight" in merged.parameters and "lm_head.weight" not in merged.parameters
