import json
import math

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.landscape import landscape
from rlmerge.evaluate.scorers import TinyScorer
from rlmerge.evaluate.tasks import read_items, read_vocabulary, score
from rlmerge.evaluate.tiny import load
from rlmerge.evaluate.weights import read_weights
from support.models import write_model

from .test_generate_tiny import BASE, EXAMPLES


def vector(*entries):
    return {"w": np.array(entries, np.float32)}


def bowl(weights):
    """Two tasks whose losses are squared distances from the origin and from (1, 1)."""
    return {
        "first": (float(weights["w"][0]), float((weights["w"] ** 2).sum())),
        "second": (float(weights["w"][1]), float(((weights["w"] - 1) ** 2).sum())),
    }


def test_a_curve_worked_by_hand():
    # θ_0 = (1, 0), θ_a = (2, 0), θ_b = (1, 3): τ_b = (0, 3), the points are (2, 3α).
    first, second = landscape(vector(1, 0), vector(2, 0), vector(1, 3), bowl, alphas=(-1, 0, 0.5), names=("x", "y"))
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
    base, center, other = vector(0, 0), vector(0, 0), vector(3, 4)
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

    (picture,) = landscape(vector(0), vector(0), vector(1), cliff, alphas=(0, 2))
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
        ({"alphas": ()}, r"alphas are \[\]"),
        ({"betas": (0.0, math.inf)}, r"betas are \[0.0, inf\]"),
        ({"direction": vector(1, 2, 3)}, r"w: y holds \[3\] where the base holds \[2\]"),
    ],
)
def test_bad_requests_are_refused(change, message):
    options = {"base": vector(0, 0), "center": vector(1, 1), "direction": vector(2, 2), "alphas": (0,), **change}
    with pytest.raises(RequestError, match=message):
        landscape(**options, score=bowl, names=("x", "y"))
