"""Recipes merged side by side: the bytes of each alone, one read for all, and shared statistics."""

import numpy as np
import pytest

from rlmerge.errors import RlmergeError
from rlmerge.merging import statistics as statistics_module
from rlmerge.merging import tile_work
from rlmerge.merging.make import open_recipe
from rlmerge.merging.sinks import StateSink
from rlmerge.merging.together import merge_together
from rlmerge.options import Options
from rlmerge.progress import Quiet
from rlmerge.recipe import recipe_from_flags
from support.family import draw
from support.models import write_model

SHAPES = {"model.layers.0.w": (64, 48), "model.layers.1.w": (48, 64), "model.norm": (48,), "ids": (0, 4)}
RECIPES = [
    ("task_arithmetic", {"weight": 0.5}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": 0.6}),
    ("ties", {"density": 0.6, "scope": "global"}),
    ("ties", {"density": 0.3, "scope": "global"}),
    ("dare_ties", {"density": 0.5}),
    ("dare_linear", {"density": 0.5, "rescale": "l1"}),
    ("breadcrumbs", {}),
    ("linear", {}),
]


@pytest.fixture(params=["bfloat16", "float32"])
def opened(tmp_path, request):
    base, experts = draw(7, 3, SHAPES)
    names = [str(write_model(tmp_path / f"e{k}", expert, request.param)) for k, expert in enumerate(experts)]
    at = str(write_model(tmp_path / "base", base, request.param))
    recipes = [recipe_from_flags(method, at, names, parameters) for method, parameters in RECIPES]
    options = Options(workers=2, cache=False)
    models = open_recipe(recipes[0], options)
    return [models.plan(recipe, None, options) for recipe in recipes]


def run(plans):
    sinks = [StateSink(lambda job: np.empty(job.output.numel, job.output.dtype.storage)) for _ in plans]
    passes = merge_together(plans, sinks, Quiet())
    return [sink.state for sink in sinks], passes


def test_each_is_what_it_is_alone(opened):
    together, passes = run(opened)
    assert passes == 1
    for plan, state in zip(opened, together, strict=True):
        (alone,), _ = run([plan])
        assert set(alone) == set(state)
        for name, values in alone.items():
            assert np.array_equal(values.view(np.uint8), state[name].view(np.uint8)), (plan.method.name, name)


def test_each_is_what_it_is_alone_where_a_part_is_accounted_for(opened, monkeypatch):
    """Most of each tensor is merged without an account, and has the same bytes."""
    monkeypatch.setattr(tile_work, "REGION", 1024)
    monkeypatch.setattr(tile_work, "SAMPLE", 256)
    sinks = [Sampling() for _ in opened]
    assert merge_together(opened, sinks, Quiet()) == 1
    whole, _ = run(opened)
    for plan, sink, state in zip(opened, sinks, whole, strict=True):
        for name, values in state.items():
            assert np.array_equal(values.view(np.uint8), sink.state[name].view(np.uint8)), (plan.method.name, name)


def test_random_numbers_are_drawn_once_for_all_that_draw_them(opened, monkeypatch):
    drawn = []
    calls = tile_work.Drawing.calls
    monkeypatch.setattr(
        tile_work.Drawing,
        "calls",
        lambda self, tile, memory: drawn.append((tile, self.count)) or calls(self, tile, memory),
    )
    dare = [plan for plan in opened if plan.method.name.startswith("dare")]
    assert len(dare) == 2
    together, _ = run([opened[0], *dare])
    merged = [name for name, job in dare[0].jobs.items() if job.method is not None and job.output.numel]
    assert sorted(tile.job.name for tile, _ in drawn) == sorted(merged), "once a tensor, each of one tile"
    assert {count for _, count in drawn} == {3}, "a stream an expert"
    drawn.clear()
    for plan, state in zip(dare, together[1:], strict=True):
        (alone,), _ = run([plan])
        assert all(np.array_equal(values.view(np.uint8), state[name].view(np.uint8)) for name, values in alone.items())
    assert not drawn, "one recipe alone draws as it goes"


DELLAS = [
    ("della", {"density": 0.5, "epsilon": 0.1}),
    ("della", {"density": 0.3, "epsilon": 0.2, "rank_nonzero": False}),
    ("della_linear", {"density": 0.7}),
    ("della", {}),
]
"""The last ones have other ranks, another formula, and nothing to rank."""


@pytest.mark.parametrize("odd", [None, np.nan, np.inf])
def test_ranks_of_several_recipes(tmp_path, monkeypatch, odd):
    """Rows that are no divisor of a block, in several steps; every recipe takes the place of the ranks of the last."""
    base, experts = draw(8, 3, {"model.layers.0.w": (200, 700), "model.layers.1.w": (64, 30)})
    if odd is not None:
        experts[1]["model.layers.0.w"][150, 7] = odd
    names = [str(write_model(tmp_path / f"e{k}", expert, "bfloat16")) for k, expert in enumerate(experts)]
    at = str(write_model(tmp_path / "base", base, "bfloat16"))
    options = Options(workers=2, cache=False, on_nonfinite="keep")
    recipes = [recipe_from_flags(method, at, names, parameters) for method, parameters in DELLAS]
    models = open_recipe(recipes[0], options)
    plans = [models.plan(recipe, None, options) for recipe in recipes]
    seen = []
    original = tile_work.TileWork._by_blocks
    monkeypatch.setattr(
        tile_work.TileWork, "_by_blocks", lambda self, tile, outs: seen.append(self) or original(self, tile, outs)
    )
    together, passes = run(plans)
    assert passes == 1
    assert seen
    assert all(work.ranks and work.drawing is not None for work in seen)
    monkeypatch.setattr(tile_work, "job_is_even", lambda job: False)
    seen.clear()
    for plan, state in zip(plans, together, strict=True):
        (alone,), _ = run([plan])
        for name, values in alone.items():
            assert np.array_equal(values.view(np.uint8), state[name].view(np.uint8)), (plan.method.name, name)
    assert not seen, "what is compared with is ranked row by row"


def test_thresholds_of_several_densities_count_once(opened, monkeypatch):
    passes = []
    count = statistics_module.Statistics._pass

    def counted(self, jobs, *more):
        passes.append(jobs[0].name)
        count(self, jobs, *more)

    monkeypatch.setattr(statistics_module.Statistics, "_pass", counted)
    run([opened[1]])
    alone = len(passes)
    passes.clear()
    run(opened[1:3])
    if opened[0].jobs["model.layers.0.w"].output.dtype.name == "bfloat16":
        assert len(passes) == alone
    else:
        # The second pass of float32 counts inside the bin that is hit, which is another for each density.
        assert len(passes) < 2 * alone


def test_a_small_budget_takes_more_passes(opened, monkeypatch):
    from rlmerge.errors import RequestError
    from rlmerge.merging import together

    size = together.size_of

    def limited(jobs, options, lanes):
        if lanes.count > 4:
            raise RequestError("too much")
        return size(jobs, options, lanes)

    monkeypatch.setattr(together, "size_of", limited)
    states, passes = run(opened)
    assert passes == 3
    assert len(states) == len(opened)


SAMPLED = {"large": (5, 1 << 19), "small": (64,)}
"""1.25 regions: elements 0 to 2^17 and 2^20 to 2^20 + 2^17 are accounted for, a fifth of all."""


class Sampling(StateSink):
    sampled = True

    def __init__(self):
        super().__init__(lambda job: np.empty(job.output.numel, job.output.dtype.storage))
        self.stats = {}

    def finish(self, job, stats):
        super().finish(job, stats)
        self.stats[job.name] = stats


def plan_of_large(tmp_path, value, places, method, **options):
    """The plan of a merge with an expert that has ``value`` at ``places`` of the large tensor and in the small one."""
    base = {name: np.ones(shape, np.float32) for name, shape in SAMPLED.items()}
    expert = {name: values.copy() for name, values in base.items()}
    expert["large"].reshape(-1)[places] = value
    expert["small"][:3] = 2.0
    models = [str(write_model(tmp_path / name, x, "bfloat16")) for name, x in (("base", base), ("e", expert))]
    recipe = recipe_from_flags(method, models[0], models[1:], {})
    options = Options(workers=2, cache=False, **options)
    return open_recipe(recipe, options).plan(recipe, None, options)


@pytest.mark.parametrize("memory", [2**29, 2**25])
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear"])
def test_an_account_of_a_part_stands_for_the_whole(tmp_path, method, memory):
    """Seven changes lie in what is accounted for, and count five times; two lie elsewhere."""
    places = [0, 1, 2, 3, 262_143, 1 << 21, (1 << 21) + 262_143, 262_144, (1 << 21) - 1]
    plan = plan_of_large(tmp_path, 2.0, places, method, memory=memory)
    sink = Sampling()
    merge_together([plan], [sink], Quiet())
    (whole,), _ = run([plan])
    assert all(np.array_equal(whole[name], sink.state[name]) for name in whole)
    assert sink.stats["large"]["counts"][2] == 35
    assert sink.stats["small"]["counts"][2] == 3


@pytest.mark.parametrize("place", [5, 500_000])
def test_what_is_not_finite_is_refused_wherever_it_lies(tmp_path, place):
    plan = plan_of_large(tmp_path, np.inf, [place], "task_arithmetic")
    with pytest.raises(RlmergeError, match="large"):
        merge_together([plan], [Sampling()], Quiet())
