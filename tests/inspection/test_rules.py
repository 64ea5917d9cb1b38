from rlmerge.inspection.rules import RULES, judge
from support.evidence import evidence

LEVELS = ["problem", "warning", "info", "good"]


def test_rules_have_unique_names_and_report_under_them():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.aspect for rule in RULES} >= {"lineage", "precision", "dilution", "conflict", "erasure", "degeneracy"}
    found = judge(evidence())
    assert {finding.rule for finding in found} <= {rule.name for rule in RULES}


def test_the_gravest_come_first():
    levels = [
        LEVELS.index(finding.level) for finding in judge(evidence(relative=(0.01, 0.9), structure=("x lacks y",)))
    ]
    assert levels == sorted(levels)
    assert levels[0] == 0
