"""Statements of sections 2.6, 3.1, 3.3 and 4 about the sparsity law."""

from __future__ import annotations

from rlmerge_lab.scaling import article, published
from rlmerge_lab.scaling.studies.law import Fit, LawStudy
from rlmerge_lab.scaling.verdict import Rule, holds, printed

Study = LawStudy


def _nls(study: Study) -> Fit:
    return study.fit("least squares")


def _value(billions: float, paper: float) -> Rule[Study]:
    return Rule(
        f"The fitted law at {billions:g}B",
        "§3.1",
        f"{paper:.3f}",
        lambda s: f"{_nls(s).law.at(billions):.4f}",
        printed(lambda s: _nls(s).law.at(billions), paper, 3),
        lambda s: f"The law through the two measured points gives {s.fit('calibration').law.at(billions):.3f}.",
    )


def _covered(study: Study) -> int:
    """How many published measurements reach the law's value at their size."""
    return sum(m.high >= _nls(study).law.at(m.billions) for m in published.MEASURED)


def _calibration_error(study: Study) -> float:
    return max(abs(_nls(study).law.at(n) - s) for n, s in article.CALIBRATION)


RULES: tuple[Rule[Study], ...] = (
    Rule(
        "Coefficient a of s(N) = 1 − a·N⁻ᵇ",
        "§3.1",
        f"{article.FIT_A:.3f}",
        lambda s: f"{_nls(s).law.a:.4f}",
        printed(lambda s: _nls(s).law.a, article.FIT_A, 3),
        lambda s: (
            f"95 % interval {s.bootstrap('trials').a.low:.3f} to {s.bootstrap('trials').a.high:.3f} over trials, "
            f"{s.bootstrap('scales').a.low:.3f} to {s.bootstrap('scales').a.high:.3f} over sizes."
        ),
    ),
    Rule(
        "Exponent b",
        "§3.1",
        f"{article.FIT_B:.3f}",
        lambda s: f"{_nls(s).law.b:.4f}",
        printed(lambda s: _nls(s).law.b, article.FIT_B, 3),
        lambda s: (
            f"95 % interval {s.bootstrap('trials').b.low:.2f} to {s.bootstrap('trials').b.high:.2f} over trials, "
            f"{s.bootstrap('scales').b.low:.2f} to {s.bootstrap('scales').b.high:.2f} over sizes; weighted "
            f"{s.fit('weighted').law.b:.3f}, log-log {s.fit('log-log').law.b:.3f}."
        ),
    ),
    Rule(
        "Coefficient of determination R²",
        "§3.1",
        f"{article.FIT_R2:.3f}",
        lambda s: f"{_nls(s).r2:.4f}",
        printed(lambda s: _nls(s).r2, article.FIT_R2, 3),
        lambda s: (
            "High because the points were generated from a law of the same form: the zeros implied by the printed "
            "Gini "
            f"column follow {s.fit('zeros by Gini').law} with R² {s.fit('zeros by Gini').r2:.3f}."
        ),
    ),
    *(_value(billions, paper) for billions, paper in article.LAW_VALUES.items()),
    Rule(
        "The law matches its calibration points",
        "§2.6, Fig. 1",
        "0.85 at 3B, 0.90 at 7B",
        lambda s: ", ".join(f"{_nls(s).law.at(n):.3f} at {n:g}B" for n, _ in article.CALIBRATION),
        holds(lambda s: _calibration_error(s) < 0.01),
        lambda s: (
            f"The fit misses them by up to {100 * _calibration_error(s):.1f} points. Two points already fix the law: "
            f"{s.fit('calibration').law}."
        ),
    ),
    Rule(
        "Sparsity exceeds 99 % at 70B",
        "abstract, §4",
        "> 0.99",
        lambda s: f"{s.fit('calibration').at_70:.3f} by the calibration points",
        holds(lambda s: s.fit("calibration").at_70 > 0.99 and s.fit("zeros by Gini").at_70 > 0.99),
        lambda s: (
            f"Only L0 of the simulated vectors does. The share of zeros fed in at 70B is "
            f"{s.fit('calibration').at_70:.3f}, and the printed Gini implies {s.fit('zeros by Gini').at_70:.3f}. The "
            "paper gives 93 % (§3.3), 94.1 % (Table 3) and 99.3 % (§3.1) for the same model size."
        ),
    ),
    Rule(
        "The exponent 0.587 is a property of sparsity",
        "§3.1, §4",
        "b = 0.587",
        lambda s: f"{s.fit('zeros by Gini').law.b:.3f} for the zeros themselves",
        holds(lambda s: abs(s.fit("zeros by Gini").law.b - article.FIT_B) < 0.02),
        lambda s: (
            f"L0 at a fixed vector length gives {s.fit('fixed length').law.b:.3f}, with vectors that grow with the "
            "model "
            f"{s.fit('growing length').law.b:.3f}, and growing vectors with the same zeros at every size still give "
            f"{s.fit('constant zeros').law.b:.3f}."
        ),
    ),
    Rule(
        "The law describes real RL checkpoints",
        "§4",
        f"{article.LAW_VALUES[70.0]:.3f} at 70B",
        lambda s: f"R² {s.fit('published').r2:.2f} for a law fitted to published runs",
        holds(lambda s: _covered(s) == len(published.MEASURED)),
        lambda s: (
            f"{_covered(s)} of {len(published.MEASURED)} published bf16 measurements reach the law: "
            + ", ".join(f"{m.label} {_range(m)} (law {_law_percent(s, m)})" for m in published.MEASURED)
            + ", in %. They show no clean trend with size."
        ),
    ),
)


def _law_percent(study: Study, measurement: published.Measurement) -> str:
    return f"{100 * _nls(study).law.at(measurement.billions):.0f}"


def _range(measurement: published.Measurement) -> str:
    low, high = 100 * measurement.low, 100 * measurement.high
    return f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
