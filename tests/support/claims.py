"""How one statement of the scale study is judged."""


def verdict(module, statement, study):
    """The verdict of a study's ``module`` on the statement that begins so."""
    (found,) = {claim.verdict for claim in module.claims(study) if claim.statement.startswith(statement)}
    return found
