import numpy as np
import pytest

from rlmerge.geometry.measure import measure
from rlmerge.inspection import Model
from rlmerge.inspection.collect import Collector
from rlmerge.kernels.dtypes import FLOAT32

NAMES = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight")


@pytest.fixture
def collected():
    collector = Collector([Model(n, n, None, "float32", 3, 12, n) for n in "ab"], "float32")
    base = np.ones(4, np.float32)
    for name, first, second in zip(
        NAMES, ([2, 1, 1, 1], [3, 1, 1, 1], [1, 1, 1, 1]), ([1] * 4, [2, 2, 1, 1], [1] * 4), strict=True
    ):
        experts = [np.array(x, np.float32) for x in (first, second)]
        collector.add(name, (4,), "float32", measure(base, experts, [FLOAT32] * 3))
    return collector


def test_module_types_in_reading_order(collected):
    embedding, up = collected.modules()
    assert (embedding.label, up.label) == ("embedding", "MLP up")
    assert (up.tensors, up.entries) == (2, 8)
    assert up.unchanged == (7 / 8, 6 / 8)
    assert up.energy == (4 / 5, 1.0)
    assert embedding.relative_norm == (0.5, 0.0)


def test_layers_and_trends(collected):
    assert [group.label for group in collected.layers()] == ["0", "1"]
    slopes = {(t.expert, t.figure): t.trend.slope for t in collected.trends()}
    assert slopes["a", "unchanged_bits"] == pytest.approx(0.25)
    assert slopes["b", "relative_norm"] == pytest.approx(-np.sqrt(0.5))


def test_whole_model(collected):
    first, second = collected.experts()
    assert first.figures["unchanged_bits"].value == 10 / 12
    assert first.shared_exactly == (0.5, 0.5)
    assert second.magnitudes == {0: 2}
    assert collected.exactly() == pytest.approx((2 / 3, 1 / 3))
    assert collected.pairs()[0].figures["jaccard"].value == pytest.approx(1 / 3)
    assert [row.kind for row in collected.rows] == ["embedding", "MLP up", "MLP up"]


def test_routers_apart():
    collector = Collector([Model(n, n, None, "float32", 2, 8, n) for n in "ab"], "float32")
    base = np.array([3, 4, 0, 0], np.float32)
    moved, same = np.array([3, 4, 1, 0], np.float32), base.copy()
    collector.add(NAMES[1], (4,), "float32", measure(base, [moved, moved], [FLOAT32] * 3))
    assert collector.routers() is None
    collector.add("model.layers.1.mlp.gate.weight", (4,), "float32", measure(base, [moved, same], [FLOAT32] * 3))
    routers = collector.routers()
    assert (routers.label, routers.tensors, routers.entries) == ("router", 1, 4)
    assert (routers.relative_norm, routers.unchanged, routers.energy) == ((0.2, 0.0), (0.75, 1.0), (0.5, 0.0))
