"""What each figure is: formula, threshold, what chance gives, how sure we are of the definition, its source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from rlmerge.frozen import frozen

Status = Literal["exact", "second-hand", "reconstruction", "ours"]


@frozen(slots=True)
class Definition:
    """One metric. ``threshold`` and ``null`` are empty where the metric has none; ``unit`` says how to print it."""

    key: str
    label: str
    formula: str
    status: Status
    source: str
    threshold: str = ""
    null: str = ""
    unit: Literal["share", "ratio", "number"] = "number"
    caution: str = ""


@frozen(slots=True)
class Measure:
    """A figure with what is needed to read it: ``null`` and its standard deviation, a bound on the error, the dtype."""

    key: str
    value: float
    dtype: str
    null: float | None = None
    null_sd: float | None = None
    error: float = 0.0

    @property
    def definition(self) -> Definition:
        return DEFINITIONS[self.key]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the fields that say nothing."""
        found = {"value": self.value, "dtype": self.dtype, "status": self.definition.status}
        optional = {"null": self.null, "null_sd": self.null_sd, "error": self.error or None}
        return found | {name: value for name, value in optional.items() if value is not None}


def define(*definitions: Definition) -> dict[str, Definition]:
    """Definitions by key."""
    return {definition.key: definition for definition in definitions}


DEFINITIONS = define(
    Definition(
        "unchanged_bits",
        "Unchanged",
        "share of entries whose stored value equals the base's (+0 = -0)",
        "exact",
        "arXiv 2505.11711",
        threshold="equal",
        unit="share",
        caution="depends on the dtype: the same run reads about 0 % in float32 and 36-92 % in bfloat16",
    ),
    Definition(
        "small_absolute",
        "|τ| ≤ 1e-5",
        "share of |τ| ≤ 1e-5",
        "exact",
        "arXiv 2505.11711",
        threshold="1e-5, absolute",
        unit="share",
    ),
    Definition(
        "small_relative",
        "|τ| ≤ 1e-3·|w|",
        "share of |ŵ - w| ≤ η·max(|w|, |ŵ|)",
        "exact",
        "arXiv 2511.08567",
        threshold="η = 1e-3, relative",
        unit="share",
    ),
    Definition(
        "l0",
        "Below 1 % of max",
        "share of |τ| < 0.01·max|τ|",
        "exact",
        "Does Sparsity Persist?, eq. 2",
        threshold="1 % of the largest change",
        unit="share",
        caution="no sparsity measure: it grows with the number of entries by itself",
    ),
    Definition(
        "gini",
        "Gini of |τ|",
        "Gini coefficient of the magnitudes, zeros included",
        "exact",
        "standard",
        null="0.5 when |τ| is exponential, 0.41 when τ is Gaussian",
    ),
    Definition(
        "kurtosis",
        "Excess kurtosis",
        "m4 / m2² - 3 of τ",
        "exact",
        "standard",
        null="0 for a Gaussian",
    ),
    Definition("top1_mass", "Mass in top 1 %", "share of Σ|τ| in the largest 1 %", "exact", "standard", unit="share"),
    Definition("top5_mass", "Mass in top 5 %", "share of Σ|τ| in the largest 5 %", "exact", "standard", unit="share"),
    Definition("norm", "‖τ‖", "L2 norm of the task vector", "exact", "standard"),
    Definition("relative_norm", "‖τ‖ / ‖θ₀‖", "L2 norm of the task vector over the base's", "exact", "standard"),
    Definition(
        "jaccard",
        "Jaccard",
        "|A ∩ B| / |A ∪ B| of the changed sets",
        "exact",
        "standard",
        threshold="changed = stored value differs",
        null="pq/(p + q - pq) for independent sets of these sizes",
        unit="share",
    ),
    Definition(
        "jaccard_active",
        "Jaccard at 1e-5",
        "|A ∩ B| / |A ∪ B| of |τ| > 1e-5",
        "exact",
        "arXiv 2601.13572",
        threshold="|τ| > 1e-5",
        null="pq/(p + q - pq) for independent sets of these sizes",
        unit="share",
    ),
    Definition(
        "cosine",
        "Cosine",
        "⟨τ_a, τ_b⟩ / (‖τ_a‖‖τ_b‖)",
        "exact",
        "standard",
        null="0 ± sqrt(Σ τ_a²τ_b²)/(‖τ_a‖‖τ_b‖): random signs on the same magnitudes",
    ),
    Definition(
        "sign_conflict",
        "Sign conflict",
        "share of opposite signs among coordinates both changed",
        "exact",
        "arXiv 2306.01708",
        threshold="changed = stored value differs",
        null="0.5 for random signs",
        unit="share",
    ),
    Definition(
        "conflict_norm",
        "Conflict norm",
        "‖C⁻‖₂ of C = τ_a ⊙ τ_b",
        "second-hand",
        "arXiv 2607.22039",
        caution="of degree 2 in the update: an 8 times smaller update gives 64 times less",
    ),
    Definition(
        "conflict_share",
        "Conflict share",
        "Σ|C⁻| / Σ|C|",
        "ours",
        "scale-free form of the conflict norm",
        null="0.5 for random signs",
        unit="share",
    ),
    Definition(
        "distance",
        "Distance",
        "‖τ_a - τ_b‖ / sqrt(‖τ_a‖‖τ_b‖)",
        "exact",
        "arXiv 2606.18521",
        null="√2 when orthogonal with equal norms",
    ),
)


def to_dict() -> dict[str, dict[str, Any]]:
    """Every definition, JSON-able."""
    return {key: asdict(definition) for key, definition in DEFINITIONS.items()}
