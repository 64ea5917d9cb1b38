"""The vocabulary of an output whose recipe says nothing of it: the base's, or what all that is known adds up to.

Models trained from one base keep the ids of its tokens and add their own behind them, often within rows that the base
has to spare. So rows are matched by position, and a model that knows all tokens of the others lends its tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlmerge.checkpoint.align import added_tokens, check_ids, some_tokens
from rlmerge.checkpoint.token_table import shown
from rlmerge.checkpoint.tokenizer import LOOSE_ROLES
from rlmerge.checkpoint.vocabulary import Member, Vocabulary
from rlmerge.errors import CheckpointError

_CHOOSE = "Choose in the recipe: `tokenizer_source: union` matches tokens by their text; or name `base` or a model."


def share(members: Sequence[Member], *, has_base: bool = True, compat: bool = False) -> Vocabulary:
    """Plan the output's tokens and rows; ``members`` begin with the base, or with the first of equals if there is none.

    CheckpointError if two models have different tokens at one id or one token at two, unless ``compat`` keeps the
    base's tokenizer as mergekit does; and if tables differ in rows of which nothing says what they are.
    """
    said = _Said()
    known = [member for member in members if member.ids]
    donor = _donor(members, known, has_base, compat, said)
    size = _size(members, donor, said.notes)
    own = np.full((len(members), size), -1, np.int32)
    for index, member in enumerate(members):
        own[index, : member.rows] = np.arange(min(size, member.rows))
    tokens = max(donor.ids.values(), default=-1) + 1
    return Vocabulary(
        tuple(members),
        donor,
        donor.ids,
        tokens,
        size,
        own,
        by_position=True,
        warnings=tuple(said.warnings),
        notes=tuple(said.notes),
        taken=tuple(said.taken),
    )


@dataclass
class _Said:
    """What there is to say: of losses, of rows, and of whose tokenizer is taken."""

    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    taken: list[str] = field(default_factory=list[str])


def _donor(members: Sequence[Member], known: Sequence[Member], has_base: bool, compat: bool, said: _Said) -> Member:
    """Whose tokenizer the output gets."""
    base = members[0]
    have = [member for member in members if member.tokenizer is not None]
    lacking = [member for member in members if member.tokenizer is None]
    if not have:
        return base
    if lacking:
        said.notes.append(
            f"{_names(lacking)} {'have' if len(lacking) > 1 else 'has'} no tokenizer; the others' is taken"
        )
    if len(known) < len(have):
        return _by_digest(have, base, said.warnings)
    problems: list[str] = []
    check_ids(known, problems)
    conflict = _conflict(known)
    if conflict is not None:
        if not compat:
            raise CheckpointError(conflict, hint=_CHOOSE)
        said.warnings.append(f"{conflict}; the tokenizer of {base.name} is kept")
        return base if base in have else have[0]
    said.warnings += problems
    return _largest(known, base, has_base, said)


def _by_digest(have: Sequence[Member], base: Member, warnings: list[str]) -> Member:
    """The donor where some tokenizer is no list of tokens: equal files are known to be equal, no more."""
    kept = base if base in have else have[0]
    other = [member for member in have if not _same_file(member, kept)]
    if other:
        warnings.append(
            f"the tokenizer of {_names(other)} cannot be compared with that of {kept.name} token by token "
            f"({_file(other[0])} against {_file(kept)}); the output has that of {kept.name}"
        )
    return kept


def _same_file(one: Member, other: Member) -> bool:
    assert one.tokenizer is not None and other.tokenizer is not None
    return one.tokenizer.digest == other.tokenizer.digest and one.ids == other.ids


def _file(member: Member) -> str:
    return member.tokenizer.file.name if member.tokenizer else "nothing"


def _conflict(known: Sequence[Member]) -> str | None:
    """What is wrong where two models do not mean the same token by an id."""
    ids: dict[str, tuple[int, Member]] = {}
    tokens: dict[int, tuple[str, Member]] = {}
    clashes: list[str] = []
    seen: list[Mapping[str, int]] = []
    for member in known:
        if any(member.ids is table or member.ids == table for table in seen):
            continue
        seen.append(member.ids)
        for token, id in member.ids.items():
            mine = ids.setdefault(token, (id, member))
            other = tokens.setdefault(id, (token, member))
            if other[0] != token:
                clashes.append(
                    f"the id {id} is {shown(token)} in {member.name} and {shown(other[0])} in {other[1].name}"
                )
            elif mine[0] != id:
                clashes.append(f"{shown(token)} has the id {id} in {member.name} and {mine[0]} in {mine[1].name}")
    if not clashes:
        return None
    return clashes[0] if len(clashes) == 1 else f"{clashes[0]} ({len(clashes):,} such conflicts)"


def _largest(known: Sequence[Member], base: Member, has_base: bool, said: _Said) -> Member:
    """A model that has the tokens of all: the base if it does, else the first; the base with a warning if none does."""
    every = set[str]().union(*(member.ids for member in known))
    full = [member for member in known if len(member.ids) == len(every)]
    if not full:
        kept = base if base in known else known[0]
        lost = [token for token in every if token not in kept.ids]
        said.warnings.append(
            f"no model has the tokens of all others; the output's tokenizer is that of {kept.name}, which lacks "
            f"{some_tokens(sorted(lost))} (tokenizer_source: union would keep them)"
        )
        return kept
    donor = _alike(full, [member for member in known if member is not base or not has_base], base)
    if base in known and len(base.ids) < len(every):
        new = sorted((token for token in every if token not in base.ids), key=donor.ids.__getitem__)
        lacking = [member for member in known if member is not base and member not in full]
        if lacking:
            said.warnings.append(
                f"the output's tokenizer is that of {donor.name}, which has {some_tokens(new)} beside the tokens of "
                f"{base.name}; {_names(lacking)} {'lack' if len(lacking) > 1 else 'lacks'} some of them"
            )
        else:
            said.taken.append(
                f"the tokenizer is that of {donor.name} (beside {base.name}'s tokens it has {some_tokens(new)})"
            )
    elif donor is not base and base in known:
        said.taken.append(f"the tokenizer is that of {donor.name} ({_manner(donor, base)})")
    return donor


def _manner(donor: Member, base: Member) -> str:
    """In what a tokenizer with the base's tokens is another one."""
    mine, other = donor.tokenizer, base.tokenizer
    assert mine is not None and other is not None
    roles = [
        f"its {role} is {shown(token)}"
        for role, token in mine.special.items()
        if isinstance(token, str) and other.special.get(role) != token and role not in LOOSE_ROLES
    ]
    return ", ".join(roles) or "it handles text by other rules than the base's"


def _alike(full: Sequence[Member], experts: Sequence[Member], base: Member) -> Member:
    """Among models with all tokens, the base, unless the experts agree on special tokens or rules that it lacks."""

    def manner(member: Member) -> tuple[object, ...]:
        tokenizer = member.tokenizer
        if tokenizer is None:
            return ()
        return tokenizer.digest, {k: value for k, value in tokenizer.special.items() if k not in LOOSE_ROLES}

    agreed = all(manner(member) == manner(experts[0]) for member in experts)
    if base in full and not (experts and agreed and manner(experts[0]) != manner(base) and experts[0] in full):
        return base
    return next((member for member in full if member is not base), base)


def _size(members: Sequence[Member], donor: Member, notes: list[str]) -> int:
    """Rows of the output's tables."""
    base = members[0]
    # A model without tables (a renamed embedding, or one that is missing) is compared tensor by tensor later.
    members = [member for member in members if member.rows or member is base]
    if all(member.rows == base.rows for member in members):
        return base.rows
    unknown = next((member for member in members if member.rows != donor.rows and not _comparable(member, donor)), None)
    if unknown is not None:
        what = (
            f"its vocabulary tables have {unknown.rows} rows, those of {donor.name} {donor.rows}, "
            "and nothing says which token a row belongs to"
        )
        hint = "Put the tokenizer files of both models beside their weights, or resize the expert's embedding first."
        raise CheckpointError(what, where=unknown.name, hint=hint)
    needed = max(donor.ids.values(), default=-1) + 1
    fitting = [member.rows for member in (donor, *members) if member.rows >= needed]
    size = fitting[0] if fitting else max(member.rows for member in members)
    for member in members:
        if member.rows != size:
            notes.append(
                f"the vocabulary tables of {member.name} have {member.rows} rows; the output has {size}, "
                + (
                    "its further rows are of no token"
                    if member.rows > size
                    else "the others come from models with them"
                )
            )
    return size


def _comparable(member: Member, donor: Member) -> bool:
    """Whether the meaning of a member's rows is known beside the donor's."""
    if member.ids and donor.ids:
        return True
    return member.tokenizer is not None and donor.tokenizer is not None and _same_file(member, donor)


def lost_tokens(vocabulary: Vocabulary, member: Member) -> list[str]:
    """A member's added tokens that have a row and that the output lacks."""
    ids = member.ids
    return [token for token in added_tokens(member) if token not in vocabulary.ids and ids[token] < member.rows]


def _names(members: Sequence[Member]) -> str:
    return ", ".join(member.name for member in members)
