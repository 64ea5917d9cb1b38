"""Verdicts follow the result: a result that says otherwise is judged otherwise."""

from __future__ import annotations

from dataclasses import replace

from rlmerge_lab.scaling.law import Law
from rlmerge_lab.scaling.rules import agents, anatomy, law, memory, merge, sparsity
from rlmerge_lab.scaling.studies.sparsity import Spread
from rlmerge_lab.scaling.verdict import Verdict, judge


def verdict(module, statement, result):
    (claim,) = judge([rule for rule in module.RULES if rule.statement.startswith(statement)], result)
    return claim.verdict


def test_gini_off_by_more_than_its_error_is_not_reproduced(results):
    rows = tuple(replace(row, gini=Spread(row.gini.mean - 0.05, 0.001)) for row in results["sparsity"].rows)
    shifted = replace(results["sparsity"], rows=rows)
    assert sparsity.gini_matches(shifted) == 0
    assert verdict(sparsity, "Gini", shifted) is Verdict.NOT_REPRODUCED


def test_a_few_sizes_apart_is_in_kind_for_gini(results):
    rows = results["sparsity"].rows
    off = tuple(replace(row, gini=Spread(0.5, 0.0)) for row in rows[:2])
    assert verdict(sparsity, "Gini", replace(results["sparsity"], rows=off + rows[2:])) is Verdict.IN_KIND


def test_falling_metrics_are_not_rising(results):
    reversed_rows = replace(results["sparsity"], rows=results["sparsity"].rows[::-1])
    assert verdict(sparsity, "All four", reversed_rows) is Verdict.NOT_REPRODUCED


def with_fit(study, name, **changes):
    return replace(study, fits=tuple(replace(f, **changes) if f.name == name else f for f in study.fits))


def test_another_fit_is_not_the_printed_one(results):
    other = with_fit(results["law"], "least squares", law=Law(0.1, 0.5), r2=0.9)
    for statement in ("Coefficient a", "Exponent b", "Coefficient of", "The fitted law at 70B"):
        assert verdict(law, statement, results["law"]) is Verdict.REPRODUCED
        assert verdict(law, statement, other) is Verdict.NOT_REPRODUCED


def test_a_law_below_the_published_values_would_describe_them(results):
    low = with_fit(results["law"], "least squares", law=Law(0.9, 0.2))
    assert verdict(law, "The law describes", low) is Verdict.REPRODUCED


def with_score(study, method, **changes):
    return replace(study, scores=tuple(replace(s, **changes) if s.method == method else s for s in study.scores))


def test_ram_above_averaging_would_be_an_advantage(results):
    better = with_score(with_score(results["merge"], "Simple Avg", cosine=0.5), "RAM", cosine=0.9, retention=1.0)
    for statement in ("RAM consistently", "RAM's advantage", "RAM's rescaling"):
        assert verdict(merge, statement, results["merge"]) is Verdict.NOT_REPRODUCED
        assert verdict(merge, statement, better) is Verdict.REPRODUCED


def test_dare_above_ties_is_not_the_printed_order(results):
    assert verdict(merge, "DARE", with_score(results["merge"], "DARE", cosine=0.99)) is Verdict.NOT_REPRODUCED


def test_a_wider_gap_would_be_the_printed_one(results):
    study = results["anatomy"]
    rows = tuple(replace(row, printed=(0.9700, 0.01)) if row.kind == "attention" else row for row in study.rows)
    assert verdict(anatomy, "Attention is 2.4", replace(study, rows=rows)) is Verdict.REPRODUCED
    assert round(100 * anatomy.gap(study), 2) == 2.34


def test_flat_layers_have_no_trend(results):
    flat = replace(results["anatomy"], trends=results["anatomy"].control_trends)
    assert verdict(anatomy, "Sparsity increases", flat) is Verdict.NOT_REPRODUCED


def test_rising_overlap_is_not_falling(results):
    study = results["agents"]
    assert verdict(agents, "Jaccard is stable", replace(study, independent=study.independent[::-1])) is (
        Verdict.NOT_REPRODUCED
    )


def test_aligned_agents_are_not_null(results):
    rows = tuple(replace(row, cosine=0.5) for row in results["agents"].independent)
    assert verdict(agents, "Cosine", replace(results["agents"], independent=rows)) is Verdict.NOT_REPRODUCED


def test_a_small_embedding_would_fit_equation_6(results):
    models = tuple(replace(model, equation_6=5.0) for model in results["memory"].models)
    assert verdict(memory, "Stream peak", replace(results["memory"], models=models)) is Verdict.REPRODUCED


def test_another_naive_column_is_not_the_printed_one(results):
    printed = tuple(replace(row, naive=row.naive + 1) for row in results["memory"].printed)
    assert verdict(memory, "Naive", replace(results["memory"], printed=printed)) is Verdict.NOT_REPRODUCED
