"""Sources that compute what an adapter makes of a tensor: float64 references, the same bits for cuts and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint import ArraySource, open_checkpoint
from rlmerge.checkpoint.formats.adapter_products import Dora, LowRank, Update
from rlmerge.checkpoint.formats.adapter_sources import Replaced, Shifted, TrainedRows
from rlmerge.checkpoint.formats.adapter_updates import layer_tensor
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32, decode
from rlmerge.kernels.rounding import encode
from support.adapters import MADE

RNG = np.random.default_rng(5)


def source(name, *shape, dtype=FLOAT32):
    return ArraySource(name, dtype, encode(RNG.standard_normal(shape), dtype), "model")


def array(one):
    return decode(one.read(), one.dtype).astype(np.float64).reshape(one.shape)


def update(out, inner, rank=3, **settings):
    return Update("m", source("a", rank, inner), source("b", out, rank), 0.75, rank, **settings)


OUT, IN = 7, 37
BASE = source("w", OUT, IN, dtype=BFLOAT16)
TURNED = source("w", IN, OUT, dtype=BFLOAT16)
SQUARE = source("w", OUT, OUT)
MAGNITUDE = source("m", OUT)


def product(up):
    return up.scale * (array(up.b) @ array(up.a))


def scaled(weight, magnitude):
    """DoRA by its definition: every output's vector of inputs at its trained length."""
    return weight * (magnitude / np.sqrt(np.square(weight).sum(axis=1)))[:, None]


CASES = {}
up = update(OUT, IN)
CASES["layer"] = (layer_tensor("w", BASE, BASE, up, False), array(BASE) + product(up))
CASES["transposed"] = (layer_tensor("w", TURNED, TURNED, up, False), array(TURNED) + product(up).T)
up = update(OUT, IN, is_embedding=True)
CASES["embedding"] = (layer_tensor("w", TURNED, TURNED, up, False), array(TURNED) + product(up).T)
up = update(OUT, OUT)
CASES["square"] = (layer_tensor("w", SQUARE, SQUARE, up, False), array(SQUARE) + product(up))
CASES["square conv1d"] = (layer_tensor("w", SQUARE, SQUARE, up, True), array(SQUARE) + product(up).T)
up = update(OUT, IN, magnitude=MAGNITUDE)
CASES["dora"] = (
    layer_tensor("w", BASE, BASE, up, False),
    scaled(array(BASE) + product(up), array(MAGNITUDE)),
)
CASES["dora transposed"] = (
    layer_tensor("w", TURNED, TURNED, up, False),
    scaled(array(TURNED).T + product(up), array(MAGNITUDE)).T,
)
VALUE, ROWS = source("rows", 3, IN), (5, 0, 2)
picked = array(BASE)
picked[list(ROWS)] = array(VALUE)
CASES["rows"] = (TrainedRows("w", "w", BASE, BASE, ROWS, VALUE), picked)
BIAS, SHIFT = source("bias", OUT, dtype=BFLOAT16), source("shift", OUT)
CASES["shift"] = (Shifted("bias", "bias", BIAS, BIAS, SHIFT, 0.3), array(BIAS) + 0.3 * array(SHIFT))
CASES["replaced"] = (Replaced("bias", "bias", BIAS, SHIFT), array(SHIFT))
MIXTRAL = open_checkpoint(MADE / "mixtral" / "fused", base=open_checkpoint(MADE / "mixtral" / "base"))
GPT_OSS = open_checkpoint(MADE / "gpt-oss" / "transposed", base=open_checkpoint(MADE / "gpt-oss" / "base"))


def stacked(found):
    """PEFT's definition for experts: Δ[e] = s Σ_r B[:, r, e] A[e, r, :], rows of the slab."""
    up, ground = found.update, array(found.ground)
    a = array(up.a).reshape(up.experts, up.rank, -1)
    b = array(up.b).reshape(-1, up.rank, up.experts)
    return ground, up.scale * np.einsum("ore,eri->eoi", b, a)


one = MIXTRAL.tensors["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
ground, delta = stacked(one)
CASES["expert on its own"] = (one, ground + delta[2, 24:])
one = GPT_OSS.tensors["model.layers.0.mlp.experts.gate_up_proj"]
ground, delta = stacked(one)
CASES["experts transposed"] = (one, ground + delta.transpose(0, 2, 1))


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_definition(name):
    found, expected = CASES[name]
    values = array(found)
    assert values.shape == found.shape == expected.shape
    # Float32 sums of four terms below 20, then for DoRA a product: a few units of 2e-6.
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_bits_do_not_depend_on_the_range(name, data):
    found, _ = CASES[name]
    whole = found.read()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, found.numel)] * 2)))
    part = found.read(start, stop)
    assert part.tobytes() == whole[start:stop].tobytes()
    assert part.dtype == found.dtype.storage and part.shape == (stop - start,)


@pytest.mark.parametrize("name", CASES)
def test_threads_have_the_same_bits_and_results_cannot_be_written(name):
    found, _ = CASES[name]
    step = max(1, found.numel // 13)
    spans = [(start, min(start + step, found.numel)) for start in range(0, found.numel, step)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda span: found.read(*span), spans))
    assert np.concatenate(parts).tobytes() == found.read().tobytes()
    assert name == "replaced" or not parts[0].flags.writeable


def test_dora_measures_once_for_all_threads(monkeypatch):
    up = update(40, 50, magnitude=source("m", 40))
    base = source("w", 40, 50)
    found = layer_tensor("w", base, base, up, False)
    calls = []
    monkeypatch.setattr(
        Dora, "_row_squares", lambda self, original=Dora._row_squares: calls.append(1) or original(self)
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda start: found.read(start, start + 10), range(0, 2000, 10)))
    assert calls == [1]


def test_lengths_have_the_same_bits_for_every_size_of_chunk(monkeypatch):
    for transposed in (False, True):
        up = update(40, 50, magnitude=source("m", 40))
        base = source("w", *((50, 40) if transposed else (40, 50)))
        found = layer_tensor("w", base, base, up, False)
        expected = found.read().tobytes()
        monkeypatch.setattr("rlmerge.checkpoint.formats.adapter_products._CHUNK", 100)
        assert layer_tensor("w", base, base, up, False).read().tobytes() == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda ground, up: layer_tensor("w", ground, ground, up, False),
        lambda ground, up: TrainedRows("w", "w", ground, ground, (0, 1, 2), source("v", 3, IN)),
    ],
)
def test_a_fingerprint_follows_base_and_update(make):
    first = make(BASE, update(OUT, IN))
    assert first.fingerprint(True) == first.fingerprint(True)
    other = ArraySource("w", BFLOAT16, BASE.read().reshape(OUT, IN) ^ 1, "model")
    assert make(other, update(OUT, IN)).fingerprint(True) != first.fingerprint(True)
    assert make(BASE, update(OUT, IN)).fingerprint(True) != first.fingerprint(True)


def test_a_fingerprint_never_computes_the_product(monkeypatch):
    monkeypatch.setattr(LowRank, "read", lambda *_: pytest.fail("was computed"))
    changed = [found for found in MIXTRAL.tensors.values() if isinstance(found, LowRank)]
    prints = {found.fingerprint(True) for found in changed}
    assert len(prints) == len(changed) == 20, "parts of one update differ by their place"


def test_a_fingerprint_follows_the_scale_and_the_kind():
    a, b = source("a", 3, OUT), source("b", OUT, 3)
    prints = {
        layer_tensor("w", SQUARE, SQUARE, Update("m", a, b, scale, 3, magnitude=magnitude), turned).fingerprint(True)
        for scale in (1.0, 2.0)
        for magnitude in (None, MAGNITUDE)
        for turned in (False, True)
    }
    assert len(prints) == 8


def test_memory_is_declared():
    assert CASES["layer"][0].scratch.per_element == 4, "the result alone"
    assert CASES["layer"][0].scratch.fixed == 0
    assert CASES["replaced"][0].scratch.per_element == 0
    embedding = CASES["embedding"][0].scratch
    assert embedding.fixed == 2 * 3 * OUT * 4, "B lies the other way round; a copy is kept, another may be made"
    assert embedding.per_element == 4 + 3 * 4 / OUT, "so are the rows of A that a tile needs"
    assert CASES["dora"][0].scratch.fixed >= 8 * OUT


def test_ranges_outside_the_tensor_are_refused():
    for found, _ in CASES.values():
        with pytest.raises(ValueError, match="is not a range"):
            found.read(0, found.numel + 1)


def test_factors_that_do_not_fit_have_no_tensor():
    assert layer_tensor("w", BASE, BASE, update(OUT, IN + 1), False) is None
    assert layer_tensor("w", BASE, BASE, update(OUT, IN, is_embedding=True), False) is None
    assert layer_tensor("w", BIAS, BIAS, update(OUT, IN), False) is None
    deep = Update("m", source("a", 3, IN), source("b", OUT, 3, 2), 1.0, 3)
    assert layer_tensor("w", BASE, BASE, deep, False) is None
    assert layer_tensor("w", BASE, BASE, update(OUT, IN, magnitude=source("m", OUT + 1)), False) is None


def test_places_in_messages_name_factors_and_base():
    assert CASES["layer"][0].where == "model: a, applied to model: w"
    assert CASES["rows"][0].where == "model: rows"
