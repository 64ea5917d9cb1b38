"""Every method on every backend: the same bits stored, the same counts, the same sums up to the order of additions."""

import warnings

import numpy as np
import pytest

from rlmerge import methods
from rlmerge.checkpoint import ArraySource, OutputTensor
from rlmerge.kernels.dtypes import BY_NAME, FLOAT32
from rlmerge.merging import Job
from rlmerge.merging.account import Account
from rlmerge.merging.execute import Executor, Lane, Task
from rlmerge.merging.on_llvm import LlvmBackend
from rlmerge.merging.on_numpy import NumpyBackend
from rlmerge.merging.sinks import StateSink
from rlmerge.merging.sizing import size_of
from rlmerge.merging.statistics import Statistics
from rlmerge.merging.stream import Workers
from rlmerge.options import Options
from rlmerge.progress import Quiet
from support.family import draw
from support.measured import fishers
from support.models import stored

SHAPES = {"a.weight": (300, 260), "b.weight": (70_001,), "c.weight": (3, 5, 40), "scalar": ()}
SETTINGS = {
    "scf_rkl": [{}, {"importance": "element"}, {"order": "argmax"}],
    "sar_merging": [{}, {"rescale": "l2"}],
    "nuslerp": [{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
    "emr": [{}, {"expert": 2.0}],
    "covariance": [{"rank": 8.0}, {"rank": 0.0}],
    "wudi": [{"steps": 3.0}],
    "slerp": [{"t": 0.3}],
    "nearswap": [{"t": 0.01}],
    "ties": [{"density": 0.3}, {"density": 0.3, "scope": "global", "rescale": "l1"}],
    "ram": [{}, {"active": "percentile", "percentile": 60}],
}
DENSE = {"density": 0.4}
SUMMED = {"dare_linear": {"rescale": "l1"}, "dare_ties": {"rescale": "l1"}}


def cases():
    for name in methods.names():
        default = DENSE if "density" in methods.get(name).names else {}
        for given in SETTINGS.get(name, [default]):
            yield name, given


def jobs_of(name, given, dtype):
    method = methods.get(name)
    count = max(method.min_experts, min(3, method.max_experts or 3))
    base, experts = draw(3, count, SHAPES)
    kind = BY_NAME[dtype]
    fisher = fishers(5, count, SHAPES)

    def source(label, tensor, array):
        words = np.asarray(stored(array, dtype)).view(kind.storage)
        return ArraySource(tensor, kind, words, label)

    static = {p.argument: given.get(p.name, p.default) for p in method.parameters if p.is_static}
    jobs = []
    for tensor, shape in SHAPES.items():
        values = {p.argument: given.get(p.name, p.default) for p in method.parameters}
        values |= {p.argument: np.full(count, values[p.argument]) for p in method.parameters if p.per == "expert"}
        numel = int(np.prod(shape, dtype=int))
        values |= {"experts": float(count), "numel": numel, "wide": kind.storage == np.float64}
        values |= {"kind": "", "shape": shape}
        extras = {}
        if "sensitivity" in method.inputs:
            extras["sensitivity"] = tuple(
                ArraySource(tensor, FLOAT32, f[tensor], f"f{k}") for k, f in enumerate(fisher)
            )
        if "gram" in method.inputs and len(shape) == 2 and not values.get("rank"):
            grams = [np.eye(shape[1], dtype=np.float32) * (k + 1) for k in range(count)]
            extras["gram"] = tuple(ArraySource(tensor, FLOAT32, g, "g") for g in grams)
        values["further"] = tuple(extras)
        jobs.append(
            Job(
                OutputTensor(tensor, kind, shape),
                method,
                source("base", tensor, base[tensor]),
                tuple(source(f"e{k}", tensor, e[tensor]) for k, e in enumerate(experts)),
                tuple(range(count)),
                values,
                method.statistics(count, **static),
                extras,
            )
        )
    return jobs


class Kept(StateSink):
    """Merged arrays, and the account of each."""

    def __init__(self, count):
        super().__init__(lambda job: np.empty(job.output.numel, job.output.dtype.storage))
        self.account = Account([f"e{k}" for k in range(count)])

    def finish(self, job, stats):
        super().finish(job, stats)
        self.account.add(job, stats)


def merge(jobs, backend, workers=2):
    options = Options(seed=4, workers=workers)
    sizing = size_of(jobs, options)
    sink = Kept(len(jobs[0].experts))
    with Workers(sizing.threads, backend) as pool:
        statistics = Statistics(jobs, pool, options, sizing, Quiet())
        statistics.scan_model()
        Executor([Lane(statistics, sink)], pool, sizing, options, Quiet()).run(Task((job,)) for job in jobs)
    return sink


def label(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("name", "given"), list(cases()), ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else x
)
def test_every_method_on_every_backend(name, given, dtype):
    torch = pytest.importorskip("torch")
    from rlmerge.merging.on_torch import TorchBackend

    jobs = jobs_of(name, given, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as torch's, of arrays that cannot be written
        expected, *others = (merge(jobs, b) for b in (NumpyBackend(), LlvmBackend(), TorchBackend(torch.device("cpu"))))
    for found in others:
        for job in jobs:
            ours, theirs = found.state[job.name], expected.state[job.name]
            if any(s.reduce in ("sum", "rows") for stage in job.stages for s in stage):
                # Sums of float64 in another order differ in their last bits (2^-52 times the root of some 10^5 terms),
                # which is one step of narrower types at most.
                if dtype == "float64":
                    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15, err_msg=job.name)
                else:
                    assert steps_apart(ours, theirs) <= 1, job.name
            else:
                assert ours.tobytes() == theirs.tobytes(), job.name
        for mine, reference in zip(found.account.survival(), expected.account.survival(), strict=True):
            assert (mine.changed, mine.unique) == (reference.changed, reference.unique)
            assert mine.projection == pytest.approx(reference.projection, rel=1e-6, nan_ok=True)


def steps_apart(a, b):
    """The largest distance of two arrays of storage values, in steps of their type."""

    def lattice(x):
        words = x.view({2: np.int16, 4: np.int32, 8: np.int64}[x.dtype.itemsize]).astype(object)
        low = -(1 << (8 * x.dtype.itemsize - 1))
        return np.where(words < 0, low - words, words)

    return int(np.abs(lattice(a) - lattice(b)).max(initial=0))


def test_steps_are_counted_through_zero():
    tiny = np.array([5e-324, 0.0, -5e-324])
    assert steps_apart(tiny, np.zeros(3)) == 1
    assert steps_apart(np.array([1.0], np.float32), np.nextafter(np.ones(1, np.float32), np.float32(2))) == 1
