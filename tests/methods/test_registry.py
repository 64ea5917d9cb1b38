"""The registry, the rules every shipped method keeps, and methods that users write."""

import numpy as np
import pytest

import rlmerge
from rlmerge import merge_state_dicts, methods
from rlmerge.errors import RequestError
from rlmerge.merging import make_plan, run
from rlmerge.methods import Method, Parameter
from rlmerge.options import Options
from rlmerge.recipe import recipe_from_flags
from support.examples import fine_tunes
from support.interpret import interpret
from support.models import read_model, write_model

SETTINGS = {
    "ties": [
        {"density": 0.2},
        {"density": 0.2, "weight": [1.0, -0.5, 2.0], "normalize": False},
        {"density": 0.2, "rescale": "l1"},
    ],
    "dare_linear": [{"density": 0.5}, {"density": 0.5, "rescale": "l1"}],
    "dare_ties": [{"density": 0.5}, {"density": 0.5, "rescale": "l1", "normalize": True}],
    "ram": [{}, {"active": "bits"}, {"active": "strict", "percentile": 60}],
    "ram_percentile": [{"percentile": 80}],
    "nuslerp": [
        {"weight": [1.0, 3.0]},
        {"nuslerp_flatten": False},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ],
    "consensus_ta": [{"mask_lambda": [0.3, 0.5, 0.4]}, {"agreeing": 1}],
    "emr": [{}, {"expert": 2}],
    "cabs": [{"n": 2, "m": 8}],
    "covariance": [{"rank": 8}, {"rank": 0}, {"weight": [1.0, 0.5, 2.0], "lambda": 0.7}],
    "wudi": [{"steps": 5}],
    "swudi": [{}, {"start": "zero"}],
    "resmerge": [{}, {"rank": 3}],
    "knots": [{}, {"density": 0.3}, {"merge": "mean"}],
    "slerp": [{"t": 0.3}],
    "breadcrumbs": [{"density": 0.1}, {"density": 0.5, "rank_nonzero": True, "rescale": "l1"}],
    "breadcrumbs_ties": [{"density": 0.1, "rescale": "l1"}],
    "della": [{"density": 0.6, "epsilon": [0.2, 0.4, 0.1]}, {"density": 0.5, "rescale": "l1", "rank_nonzero": False}],
    "della_linear": [{"density": 0.6}],
    "sce": [{}, {"select_topk": 0.2}, {"select_topk": 0.2, "undecided": "none"}],
    "model_stock": [{}, {"filter_wise": True}],
    "multislerp": [{"weight": [1.0, 2.0, 0.5]}],
    "nearswap": [{"t": 0.0002}],
    "passthrough": [{"scale": 0.5}],
    "sar_merging": [
        {},
        {"arbitration": "fisher_mean", "active": "bits", "rescale": "l2"},
        {"arbitration": "winner_on_sign_conflict", "density": [0.5, 1.0, 0.2], "rescale": "inverse"},
    ],
    "scf_rkl": [{}, {"order": "argmax"}, {"importance": "element", "direction": "forward"}, {"divergence": "exact"}],
    "fisher": [],  # these two need what only files provide
    "regmean": [],
}
MOVES_EVERYTHING = {"slerp", "karcher", "passthrough", "ace"}
"""Arcs between whole weights, and factors on them, move every coordinate; ACE takes the mean row off every change."""

CASES = [(name, options) for name in methods.names() for options in SETTINGS.get(name, [{}])]
IDS = [f"{name}-{'-'.join(options)}" for name, options in CASES]


def models(name, seed=0, shape=(48, 65)):
    """A base and as many experts as the method takes, up to three; what to merge them with is ``given``."""
    return fine_tunes(seed, min(3, methods.get(name).max_experts or 3), shape)


def given(name, base):
    """The base as an input of the merge, which it is not for methods that ignore it."""
    return None if methods.get(name).base == "ignored" else base


def merged_in_memory(name, base, experts, **options):
    """The one tensor of a merge of state dicts."""
    start = None if given(name, base) is None else {"w": base}
    return merge_state_dicts(start, [{"w": x} for x in experts], name, **options)["w"]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_kernels_have_the_bits_of_the_formula_on_numpy(name, options):
    base, experts = models(name)
    merged = merged_in_memory(name, base, experts, **options)
    np.testing.assert_array_equal(merged, interpret(name, given(name, base), experts, real=np.float32, **options))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_float32_is_close_to_float64(name, options):
    base, experts = models(name)
    single = interpret(name, given(name, base), experts, real=np.float32, **options)
    double = interpret(name, given(name, base), experts, real=np.float64, **options)
    # A merge of K = 3 is a dozen roundings of 2^-24, relative to weights and their changes of at most 0.25.
    np.testing.assert_allclose(single, double, rtol=0, atol=12 * 0.25 * 2.0**-24)


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] not in MOVES_EVERYTHING])
def test_coordinates_nobody_changed_keep_the_bits_of_the_base(name, options):
    base, experts = models(name, 1)
    base[0, 0] = -0.0
    for expert in experts:
        expert[:8] = base[:8]
    merged = merged_in_memory(name, base, experts, **options)
    assert merged[:8].tobytes() == base[:8].tobytes()
    assert (merged[8:] != base[8:]).any()


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_merged_models_that_are_equal_to_the_base_are_the_base(name, options):
    base, experts = models(name)
    same = merged_in_memory(name, base, [base for _ in experts], **options)
    # A whole-weight arc multiplies by coefficients that round, and adds.
    np.testing.assert_allclose(same, base * options.get("scale", 1), rtol=2.0**-22 if name in MOVES_EVERYTHING else 0)


@pytest.mark.parametrize("name", methods.names())
def test_methods_describe_themselves(name):
    method = methods.get(name)
    assert method.name == name
    assert method.summary.endswith(".")
    assert method.paper
    for parameter in method.parameters:
        assert parameter.help.endswith("."), parameter.name
        assert parameter.default is None or parameter.problem(parameter.default) is None
    for parameter_name, value in method.compat.items():
        assert method.parameter(parameter_name).problem(value) is None


def test_a_typo_is_answered_with_the_nearest_name():
    with pytest.raises(RequestError, match="unknown merge method 'dare-ties'") as caught:
        methods.get("dare-ties")
    assert "dare_ties" in caught.value.hint


def test_a_name_belongs_to_one_method():
    with pytest.raises(RequestError, match="already registered"):
        methods.register(Method("ties", lambda xp, base, tau: base, "Mine.", "none", "exact"))


@pytest.fixture
def registry(monkeypatch):
    """What is registered in a test is forgotten after it."""
    methods.names()
    monkeypatch.setattr(methods, "_registry", dict(methods._registry))


def merged_on_disk(folder, method, base, experts, dtype="float32", **parameters):
    """The tensor ``w`` of a merge from files to files, by the steps that the command line takes."""
    paths = [str(write_model(folder / f"expert{k}", {"w": x}, dtype)) for k, x in enumerate(experts)]
    start = None if base is None else str(write_model(folder / "base", {"w": base}, dtype))
    plan = make_plan(recipe_from_flags(method, start, paths, parameters), folder / "out", Options(cache=False))
    run(plan, folder / "out")
    assert rlmerge.verify(folder / "out").ok
    return read_model(folder / "out")["w"]


def test_a_users_formula_runs_from_files(registry, tmp_path):
    @methods.method("median_of_three", parameters=(Parameter("lambda", 1.0, "Factor.", argument="lam"),))
    def median_of_three(xp, base, tau, *, lam):
        """Base plus the middle change of three."""
        return base + lam * (xp.sum(tau) - xp.max(tau) - xp.min(tau))

    base, experts = fine_tunes(3, 3, (20, 33))
    merged = merged_on_disk(tmp_path, "median_of_three", base, experts, **{"lambda": 0.5})
    tau = np.stack(experts) - base
    expected = base + np.float32(0.5) * (tau[0] + tau[1] + tau[2] - tau.max(0) - tau.min(0))
    np.testing.assert_array_equal(merged, np.where((tau != 0).any(0), expected, base))
    assert methods.get("median_of_three").summary == "Base plus the middle change of three."


def test_a_formula_that_only_numpy_can_run(registry, tmp_path):
    @methods.method("tanh")
    def squash(xp, base, tau):
        return base + np.tanh(tau).sum(axis=0)

    base, experts = fine_tunes(4, 2, (300, 257))
    merged = merged_on_disk(tmp_path, "tanh", base, experts)
    tau = np.stack(experts) - base
    np.testing.assert_array_equal(merged, np.where((tau != 0).any(0), base + np.tanh(tau).sum(0), base))


def test_a_users_statistics_reach_the_formula(registry, tmp_path):
    def size(xp, base, tau):
        return tau * tau

    def longest(xp, base, tau):
        return np.sqrt((tau**2).sum(-1))

    def unit(xp, base, tau, *, squares, lengths):
        return base + xp.sum(tau / xp.sqrt(squares)) + 0.0 * lengths[0]

    methods.register(
        Method(
            "unit_steps",
            unit,
            "Every task vector at length 1.",
            "none",
            "exact",
            statistics=lambda experts, **_: (
                (methods.Statistic("squares", size, "sum"),),
                (methods.Statistic("lengths", longest, "rows"),),
            ),
        )
    )
    base, experts = fine_tunes(5, 2, (40, 50))
    merged = merged_on_disk(tmp_path, "unit_steps", base, experts)
    tau = (np.stack(experts) - base).astype(np.float64)
    expected = base + (tau / np.sqrt((tau**2).sum((1, 2), keepdims=True))).sum(0)
    # Four roundings in float32 of numbers below 1.
    np.testing.assert_allclose(merged, expected, rtol=0, atol=4 * 2.0**-24)


@pytest.fixture
def bring(monkeypatch):
    """Let packages bring methods: each is what its entry point gives, or the exception that loading it raises."""

    class Entry:
        name, value, module, dist = "theirs", "their_package:METHOD", "their_package", None

        def __init__(self, found):
            self.found = found

        def load(self):
            if isinstance(self.found, BaseException):
                raise self.found
            return self.found

    def bring(*found):
        monkeypatch.setattr(methods, "_registry", {})
        monkeypatch.setattr(methods, "_loaded", False)
        entries = [Entry(each) for each in found]
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: entries if group == "rlmerge.methods" else []
        )

    return bring


def named(name):
    return Method(name, lambda xp, base, tau: base, "Mine.", "none", "exact")


def test_entry_points_may_bring_methods(bring):
    mine = named("from_a_package")
    bring(mine)
    assert methods.get("from_a_package") is mine
    assert "ties" in methods.names()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (ImportError("no module named 'x'"), r"ImportError: no module named 'x'"),
        (SystemExit(1), "SystemExit: 1"),
        (print, "TypeError: their_package:METHOD is not an rlmerge.methods.Method"),
        (named("ties"), "a method named 'ties' is already registered"),
    ],
)
def test_a_package_whose_method_cannot_be_used_is_named_every_time(bring, found, why):
    bring(found)
    for _ in range(2):
        with pytest.raises(RequestError, match=rf"package 'their_package': its merge method 'theirs' .*{why}"):
            methods.names()
    assert methods.get("ties").paper  # which needs no other package
