"""Statements of section 3.4 and Table 3 about kinds of tensors and depth."""

from __future__ import annotations

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.studies.anatomy import AnatomyStudy, Trend
from rlmerge_lab.scaling.verdict import Rule, Verdict, holds, printed

Study = AnatomyStudy


def gap(study: Study) -> float:
    """Attention minus MLP in the printed table, as a fraction."""
    return study.row("attention").printed[0] - study.row("mlp").printed[0]


def _trends(trends: tuple[Trend, ...]) -> str:
    return ", ".join(f"{t.kind} {100 * t.rise:+.2f} ({100 * t.low:+.2f} to {100 * t.high:+.2f})" for t in trends)


def _control(study: Study) -> str:
    return ", ".join(f"{kind} {study.row(kind).control[0]:.4f}" for kind in ("norm", "attention", "mlp"))


def _counts(study: Study) -> tuple[int, ...]:
    return tuple(study.row(row.kind).count for row in article.TABLE_3)


RULES: tuple[Rule[Study], ...] = (
    Rule(
        "Tensors by kind in a 70B model",
        "Table 3",
        "320, 240, 161, 1, 1",
        lambda s: ", ".join(map(str, _counts(s))),
        holds(lambda s: _counts(s) == tuple(row.tensors for row in article.TABLE_3)),
        lambda s: f"Counted from the shapes of {s.model}: {s.count} tensors.",
    ),
    Rule(
        "Overall mean L0",
        "Table 3",
        f"{article.OVERALL_MEAN:.4f}",
        lambda s: f"{s.mean:.4f}",
        printed(lambda s: s.mean, article.OVERALL_MEAN, 4),
        lambda s: (
            f"The printed rows weighted by our count of tensors. Weighted by parameters, which is what an update "
            f"consists of, they give {s.parameter_mean:.4f}."
        ),
    ),
    Rule(
        "Overall standard deviation",
        "Table 3",
        f"{article.OVERALL_STD:.4f}",
        lambda s: f"{s.std:.4f}",
        printed(lambda s: s.std, article.OVERALL_STD, 4),
        lambda s: "Within and between kinds, pooled.",
    ),
    Rule(
        "Attention is 2.4 (§3.4) or 2.5 (§1) points sparser than MLP",
        "§1, §3.4",
        "2.4, 2.5",
        lambda s: f"{100 * gap(s):.2f}",
        holds(lambda s: f"{100 * gap(s):.1f}" in ("2.4", "2.5")),
        lambda s: "Neither follows from Table 3: 0.9688 − 0.9454.",
    ),
    Rule(
        "Attention is sparser than MLP, norms least",
        "§3.4",
        "0.969, 0.945, 0.880",
        lambda s: ", ".join(f"{s.row(kind).simulated[0]:.3f}" for kind in ("attention", "mlp", "norm")),
        holds(
            lambda s: s.row("attention").simulated[0] > s.row("mlp").simulated[0] > s.row("norm").simulated[0],
            Verdict.IN_KIND,
        ),
        lambda s: (
            "Comes out because it is put in: each kind was fed its printed mean. Fed equal zeros at their real sizes, "
            f"kinds already differ by length alone ({_control(s)}): norms read least sparse for being short."
        ),
    ),
    Rule(
        "Sparsity increases with depth",
        "§3.4, Fig. 4",
        "positive slope",
        lambda s: f"points over 80 layers: {_trends(s.trends)}",
        holds(lambda s: all(t.low > 0 for t in s.trends), Verdict.IN_KIND),
        lambda s: (
            "No slope is printed. Ours is the ramp that the printed deviations allow, and a simulation returns the "
            f"ramp it is fed: with equal zeros in every layer the rise is {_trends(s.control_trends)}."
        ),
    ),
    Rule(
        "The structure intensifies at larger scales",
        "abstract, §4",
        "stated",
        lambda s: "one model size is simulated",
        lambda s: Verdict.NOT_REPRODUCED,
        lambda s: "The paper shows a single 70B model; there is nothing to compare it with.",
    ),
)
