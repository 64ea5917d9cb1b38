import json
import math

import numpy as np
import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.exact import read_items, score
from rlmerge.evaluate.landscape.loss import barrier, landscape, sharpness
from rlmerge.evaluate.landscape.scorers import TinyScorer
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge.jsondata import plain
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load
from support.checkpoints import BASE, EXAMPLES
from support.models import write_model


def at(*entries):
    return {"w": np.array(entries, np.float32)}


def bowl(weights):
    """Two tasks whose losses are squared distances from the origin and from (1, 1)."""
    return {
        "first": (float(weights["w"][0]), float((weights["w"] ** 2).sum())),
        "second": (float(weights["w"][1]), float(((weights["w"] - 1) ** 2).sum())),
    }


def test_a_curve_worked_by_hand():
    # θ_0 = (1, 0), θ_a = (2, 0), θ_b = (1, 3): τ_b = (0, 3), the points are (2, 3α).
    first, second = landscape(at(1, 0), at(2, 0), at(1, 3), bowl, alphas=(-1, 0, 0.5), names=("x", "y"))
    assert first.to_dict() == {
        "task": "first",
        "center": "x",
        "direction": "y",
        "alphas": [-1.0, 0.0, 0.5],
        "betas": [0.0],
        "score": [[2.0], [2.0], [2.0]],
        "loss": [[13.0], [4.0], [6.25]],
    }
    assert second.score == ((-3.0,), (0.0,), (1.5,)) and second.loss == ((17.0,), (2.0,), (1.25,))


def test_a_plane_has_a_second_direction_of_the_same_norm():
    base, center, other = at(0, 0), at(0, 0), at(3, 4)
    picture = landscape(base, center, other, bowl, alphas=(0, 1), betas=(0, 1, -2))[0]
    # ‖β·u‖² = β²·25 at α = 0; float32.
    assert picture.loss[0] == pytest.approx((0, 25, 100), rel=1e-6)
    # At α = 1 the two directions add up: 25(1 + β² + 2β·cos), with one cosine for all β.
    cosine = (picture.loss[1][1] / 25 - 2) / 2
    assert -1 <= cosine <= 1 and picture.loss[1][2] == pytest.approx(25 * (5 - 4 * cosine), rel=1e-5)
    assert landscape(base, center, other, bowl, alphas=(0, 1), betas=(0, 1, -2))[0] == picture
    assert landscape(base, center, other, bowl, alphas=(0, 1), betas=(0, 1, -2), seed=1)[0] != picture
    assert landscape(base, center, other, bowl, alphas=(0, 1), betas=(0, 1, -2), memory=0)[0] == picture


def test_points_without_a_prediction_are_none_in_json():
    def cliff(weights):
        return {"t": (math.nan, math.inf) if weights["w"][0] > 1 else (1.0, 0.0)}

    (picture,) = landscape(at(0), at(0), at(1), cliff, alphas=(0, 2))
    assert picture.loss == ((0.0,), (math.inf,))
    found = json.loads(json.dumps(picture.to_dict(), allow_nan=False))
    assert found["score"] == [[1.0], [None]] and found["loss"] == [[0.0], [None]]


def test_in_memory_is_what_a_written_merge_would_score(tmp_path):
    items = [item for item in read_items(EXAMPLES / "data" / "dev.jsonl") if item.task in ("rev", "cnt")][::40]
    names = "base", "rl-rev", "rl-cnt"
    base, center, direction = (read_weights(EXAMPLES / name) for name in names)
    scorer = TinyScorer.of(BASE, items)
    pictures = landscape(base, center, direction, scorer, alphas=(0, 0.75), names=names[1:])
    merged = {name: center[name] + np.float32(0.75) * (direction[name] - base[name]) for name in base}
    write_model(tmp_path / "merged", merged, "float32", json.loads((BASE / "config.json").read_text()))
    for place, model in enumerate((EXAMPLES / "rl-rev", tmp_path / "merged")):
        expected = score(load(model), items, read_vocabulary(BASE))
        for picture in pictures:
            own = expected.on(picture.task)
            assert picture.score[place][0] == pytest.approx(own.probability.mean(), abs=1e-6)
            assert picture.loss[place][0] == pytest.approx(own.loss.mean(), abs=1e-5)
    assert [picture.task for picture in pictures] == list(dict.fromkeys(item.task for item in items))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphas": ()}, r"alphas must be one or more finite numbers, not \[\]"),
        ({"betas": (0.0, math.inf)}, r"betas must be .* not \[0.0, inf\]"),
        ({"direction": at(1, 2, 3)}, r"w: y holds \[3\] where the base holds \[2\]"),
    ],
)
def test_landscapes_that_make_no_sense_are_refused(change, message):
    options = {"base": at(0, 0), "center": at(1, 1), "direction": at(2, 2), "alphas": (0,), **change}
    with pytest.raises(RequestError, match=message):
        landscape(**options, score=bowl, names=("x", "y"))


def wells(weights):
    """A double well with minima at ±1, and a tilted line."""
    x = float(weights["w"][0])
    return {"double": (0.0, (x * x - 1) ** 2), "line": (0.0, 2 * x)}


def squares(weights):
    return {"t": (0.0, float((weights["w"].astype(np.float64) ** 2).sum()))}


def test_the_barrier_between_two_wells_by_hand():
    # x = α·(−1) + (1−α)·3 for α = 0, ¼, ½, ¾, 1 is 3, 2, 1, 0, −1, where (x² − 1)² is 64, 9, 0, 1, 0.
    # The chord is 64(1−α) = 64, 48, 32, 16, 0, so the loss never rises above it.
    far, line = barrier(at(-1), at(3), wells, points=5, names=("x", "y"))
    assert plain(far) == {
        "a": "x",
        "b": "y",
        "task": "double",
        "alphas": [0.0, 0.25, 0.5, 0.75, 1.0],
        "loss": [64.0, 9.0, 0.0, 1.0, 0.0],
        "barrier": 0.0,
    }
    # Between the two minima the chord is 0 and the top is at 0.
    assert barrier(at(-1), at(1), wells, points=5)[0].barrier == 1.0
    # A tilt is no barrier; float32 sums.
    assert line.barrier == pytest.approx(0, abs=1e-6)


def test_the_ends_are_the_models_themselves():
    a, b = (np.random.default_rng(seed).normal(size=50).astype(np.float32) for seed in (1, 2))
    (found,) = barrier({"w": a}, {"w": b}, squares, points=3)
    assert found.loss[0] == squares({"w": b})["t"][1] and found.loss[-1] == squares({"w": a})["t"][1]


def test_a_barrier_out_of_every_basin_is_none_in_json():
    def cliff(weights):
        return {"t": (0.0, 0.0 if abs(weights["w"][0]) >= 1 else math.inf)}

    (found,) = barrier(at(-1), at(1), cliff, points=3)
    assert found.barrier == math.inf
    assert plain(found)["barrier"] is None and plain(found)["loss"] == [0.0, None, 0.0]
    with pytest.raises(RunError, match="task 't': the loss of y is inf"):
        barrier(at(-1), at(0), cliff, points=3, names=("x", "y"))


def test_sharpness_of_a_parabola():
    # On Σw², moving by δ changes the loss by 2⟨w, δ⟩ + ‖δ‖², and ‖δ‖ = r‖w‖ exactly.
    model = at(6, 8)
    small, large = sharpness(model, squares, radii=(0.1, 0.5), perturbations=400, name="m")
    assert (small.model, small.task, small.radius, small.loss, small.perturbations) == ("m", "t", 0.1, 100.0, 400)
    # In two dimensions 2⟨w, δ⟩ = 2·10·10r·cos φ, φ uniform: mean 0, largest near 200r; a standard error of 200r/√800.
    for found, r in ((small, 0.1), (large, 0.5)):
        assert found.mean == pytest.approx(100 * r * r, abs=4 * 200 * r / math.sqrt(800))
        assert found.max == pytest.approx(200 * r + 100 * r * r, rel=0.01)
    assert plain(small) == {
        "model": "m",
        "task": "t",
        "radius": 0.1,
        "mean": small.mean,
        "max": small.max,
        "loss": 100.0,
        "perturbations": 400,
    }


def test_perturbations_follow_from_the_seed_and_the_shape_alone():
    first = sharpness(at(6, 8), squares, perturbations=3)
    assert (
        first == sharpness(at(6, 8), squares, perturbations=3) != sharpness(at(6, 8), squares, perturbations=3, seed=1)
    )
    seen = []

    def record(weights):
        seen.append(weights["w"].astype(np.float64))
        return {"t": (0.0, 0.0)}

    sharpness(at(6, 8), record, radii=(0.25, 0.5), perturbations=1)
    sharpness(at(0, 1), record, radii=(0.25,), perturbations=1)
    still, near, far, other, moved = seen
    np.testing.assert_allclose((far - still) / 0.5, (near - still) / 0.25, rtol=1e-5)
    # Another model of that shape moves in the same direction, as far as its own norm says.
    np.testing.assert_allclose(moved - other, (near - still) / 10, rtol=1e-5)


def test_by_entry_zeros_stay():
    seen = []

    def record(weights):
        seen.append(weights["w"].tolist())
        return {"t": (0.0, 0.0)}

    sharpness(at(0, 2), record, radii=(0.5,), perturbations=1, relative="entry")
    assert seen[1][0] == 0.0 and abs(seen[1][1] - 2) == pytest.approx(1.0)


def test_real_experts_lie_in_one_basin_and_far_points_do_not():
    items = [item for item in read_items(EXAMPLES / "data" / "dev.jsonl") if item.task in ("rev", "cnt")][::40]
    scorer = TinyScorer.of(BASE, items)
    rev, cnt = read_weights(EXAMPLES / "rl-rev"), read_weights(EXAMPLES / "rl-cnt")
    assert [found.task for found in barrier(rev, cnt, scorer, points=3)] == ["rev", "cnt"]
    assert all(found.barrier < 0.05 for found in barrier(rev, cnt, scorer, points=5))
    # The same function with its neurons in another order: equally good, and in another basin.
    order = np.random.default_rng(0).permutation(352)
    other = {
        name: array[:, order] if "down_proj" in name else array[order] if "mlp" in name else array
        for name, array in rev.items()
    }
    (permuted, _) = barrier(rev, other, scorer, points=3)
    assert permuted.loss[0] == pytest.approx(permuted.loss[2], abs=1e-4) and permuted.barrier > 0.5
    near, far = (sharpness(rev, scorer, radii=(radius,), perturbations=2)[0] for radius in (0.01, 0.5))
    assert near.max < 0.1 < far.mean


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: barrier(at(0), at(1), wells, points=2), "points must be at least 3, not 2"),
        (lambda: barrier(at(0), at(1, 2), wells), r"w: b holds \[2\] where a holds \[1\]"),
        (lambda: sharpness(at(0), wells, perturbations=0), "perturbations must be at least 1, not 0"),
        (lambda: sharpness(at(0), wells, radii=()), r"radii must be .* not \[\]"),
        (lambda: sharpness(at(0), wells, radii=(math.nan,)), r"radii must be .* not \[nan\]"),
    ],
)
def test_lines_and_radii_that_make_no_sense_are_refused(call, message):
    with pytest.raises(RequestError, match=message):
        call()


def test_a_model_without_a_loss_is_named():
    with pytest.raises(RunError, match="task 't': the loss of m is nan"):
        sharpness(at(0), lambda weights: {"t": (0.0, math.nan)}, name="m")
