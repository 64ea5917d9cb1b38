"""The vocabulary that a recipe's ``tokenizer`` asks for: tokens matched by their text, whatever their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.token_table import AddedToken, shown
from rlmerge.checkpoint.tokenizer import FAST
from rlmerge.checkpoint.vocabulary import Member, ModelToken, TokenizerSpec, Vocabulary, rows_of, unused_rows
from rlmerge.errors import CheckpointError, RequestError, did_you_mean

_SOME = 5
"""Tokens that a message names; the rest are counted."""


def align(members: Sequence[Member], spec: TokenizerSpec, *, compat: bool = False) -> Vocabulary:
    """Plan the output's tokens and rows; ``members`` begin with the base, or with the first model if there is none.

    With ``compat`` rows without a token are cut, as mergekit does, also where the vocabulary is the base's.
    CheckpointError if a tokenizer cannot be read token by token or gives two tokens one id; RequestError for a token
    that no model has.
    """
    base = members[0]
    if base.tokenizer is None:
        hint = "Add its tokenizer files, or leave `tokenizer` out of the recipe."
        raise CheckpointError("has no tokenizer to align vocabularies by", where=base.name, hint=hint)
    donor = base if isinstance(spec.source, str) else _member(members, spec.source)
    if donor.tokenizer is None:
        hint = "Name a model that has its tokenizer beside it, `base`, or `union`."
        raise CheckpointError("has no tokenizer for the output", where=donor.name, hint=hint)
    members, warnings = _readable(members)
    ids = dict(donor.ids)
    plain = {} if spec.source != "union" else _foreign(members, warnings)
    new = {token: plain.get(token, AddedToken(token)) for token in (*plain, *spec.tokens) if token not in ids}
    appended = _append(donor, ids, new)
    size, kept = _size(members, donor, ids, spec, compat)
    own = _own(members, ids, size, kept)
    given, forced = _configured(members, ids, own, spec)
    if spec.source == "union" and plain:
        warnings += _said(members, plain)
    found = Vocabulary(
        tuple(members), donor, ids, max(ids.values(), default=-1) + 1, size, own, appended, given, forced, kept
    )
    empty = found.unfilled()
    if empty and base.rows:
        rows = "rows" if len(empty) > 1 else "a row"
        warnings.append(f"no model has {rows} for {some_tokens(empty)}; the output has zeros there")
    return replace(found, warnings=tuple(warnings))


def _readable(members: Sequence[Member]) -> tuple[list[Member], list[str]]:
    """Members whose tokens are known, and warnings; one without a tokenizer is taken to have the base's."""
    base = members[0]
    found: list[Member] = []
    warnings: list[str] = []
    for member in members:
        if member.tokenizer is None:
            warnings.append(f"{member.name} has no tokenizer; its rows are taken to be those of {base.name}'s tokens")
            found.append(Member(member.checkpoint, base.tokenizer))
            continue
        if member.tokenizer.table is None:
            what = f"keeps its tokens in {member.tokenizer.file.name}, which is not read token by token"
            raise CheckpointError(what, where=member.name, hint=_CONVERT)
        found.append(member)
    check_ids(found, warnings)
    return found, warnings


def check_ids(members: Sequence[Member], warnings: list[str]) -> None:
    """CheckpointError if a tokenizer's own ids contradict each other and the models do not all have the same."""
    alike = all(member.ids == members[0].ids for member in members)
    for member in members:
        table = member.tokenizer.table if member.tokenizer else None
        if table is None or table.fault is None or member.tokenizer is None:
            continue
        where = str(member.tokenizer.file)
        if not alike:
            hint = "Save the tokenizer again with ids that follow one another, each for one token."
            raise CheckpointError(table.fault, where=where, hint=hint)
        if member is members[0]:
            warnings.append(f"{where}: {table.fault}")


def _foreign(members: Sequence[Member], warnings: list[str]) -> dict[str, AddedToken]:
    """What a union adds to the base: ordinary tokens of the other models, then their added tokens, in their order.

    Tokens without a row are none of theirs; a model without tables has no rows to tell by.
    """
    known = members[0].ids
    ordinary: dict[str, AddedToken] = {}
    added: dict[str, AddedToken] = {}
    otherwise: list[str] = []
    for member in members[1:]:
        flags = added_tokens(member)
        new = [
            token for token, id in member.ids.items() if token not in known and (id < member.rows or not member.rows)
        ]
        for token in sorted(new, key=member.ids.__getitem__):
            if token not in flags:
                ordinary.setdefault(token, AddedToken(token))
            elif added.setdefault(token, flags[token]) != flags[token]:
                otherwise.append(token)
    if otherwise:
        named = some_tokens(list(dict.fromkeys(otherwise)))
        warnings.append(f"models differ in how they match {named}; the first definition is taken")
    return {**{token: plain for token, plain in ordinary.items() if token not in added}, **added}


def added_tokens(member: Member) -> Mapping[str, AddedToken]:
    """A member's added tokens with their flags."""
    table = member.tokenizer.table if member.tokenizer else None
    return table.added if table else {}


def _append(donor: Member, ids: dict[str, int], new: Mapping[str, AddedToken]) -> tuple[tuple[AddedToken, int], ...]:
    """The new tokens with the ids that follow the donor's; they are entered into ``ids``."""
    tokenizer = donor.tokenizer
    if not new or tokenizer is None or tokenizer.table is None:
        return ()
    if not tokenizer.editable:
        what = f"has no {FAST}, to which {some_tokens(list(new))} could be added"
        raise CheckpointError(what, where=donor.name, hint=_CONVERT)
    if tokenizer.table.next_id != tokenizer.table.count:
        what = f"its ids have gaps below {tokenizer.table.count}, so that no token can be added after the last"
        hint = "Save the tokenizer again with ids that follow one another, or choose another `source`."
        raise CheckpointError(what, where=str(tokenizer.file), hint=hint)
    first = tokenizer.table.next_id
    appended = tuple((token, first + index) for index, token in enumerate(new.values()))
    ids.update((token.content, id) for token, id in appended)
    return appended


def _size(
    members: Sequence[Member], donor: Member, ids: Mapping[str, int], spec: TokenizerSpec, compat: bool
) -> tuple[int, bool]:
    """Rows of the output's tables, and whether those without a token are kept as the base has them.

    They are where the vocabulary is the base's, or where it fits into rows that base and donor have in common.
    """
    base = members[0]
    # Tokens of the base beyond its rows have none in an output with its vocabulary either.
    absent = base.rows if spec.source == "base" else None
    backed = (id for token, id in ids.items() if absent is None or id < absent or token not in base.ids)
    tokens = max(backed, default=-1) + 1
    multiple = spec.pad_to_multiple_of or 1
    rounded = -(-tokens // multiple) * multiple
    alike = donor.rows == base.rows or donor.ids == base.ids
    if not compat and spec.pad_to_multiple_of is None and alike and tokens <= base.rows:
        return base.rows, True
    return rounded, rounded == base.rows and not compat


def _own(members: Sequence[Member], ids: Mapping[str, int], size: int, kept: bool) -> np.ndarray:
    """Each member's row for each output row, int32 [members, size]; -1 where it has none."""
    own = np.stack([rows_of(member, ids, size) for member in members])
    if kept:
        free, place = unused_rows(ids, size), np.arange(size)
        for index, member in enumerate(members):
            # A row without a token keeps its place, in other models than the base where it has none there either.
            spare = free & (place < member.rows)
            if index:
                spare &= unused_rows(member.ids, size)
            own[index, spare] = place[spare]
    return own


def _configured(
    members: Sequence[Member], ids: Mapping[str, int], own: np.ndarray, spec: TokenizerSpec
) -> tuple[dict[int, tuple[int, int] | None], frozenset[int]]:
    """Output rows for which the recipe says what models get that lack them, and rows that it forces on all."""
    given: dict[int, tuple[int, int] | None] = {}
    forced: set[int] = set()
    for token, wish in spec.tokens.items():
        place = ids[token]
        if place >= own.shape[1]:
            continue
        if wish.source is not None:
            given[place] = None if wish.source == "zero" else _row(members, token, wish.source)
        elif (own[:, place] < 0).all():
            hint = "Correct its spelling, or give it a source: {kind: zero}, or {kind: model_token, model, token}."
            raise RequestError(f"no model has the token {shown(token)}", where="tokenizer.tokens", hint=hint)
        if wish.force:
            forced.add(place)
    return given, frozenset(forced)


def _row(members: Sequence[Member], token: str, wish: ModelToken) -> tuple[int, int]:
    member = _member(members, wish.model)
    index = members.index(member)
    if wish.id is not None:
        if not 0 <= wish.id < member.rows:
            what = f"{member.name} has {member.rows} rows, and none of number {wish.id}"
            raise RequestError(what, where=f"tokenizer.tokens: {shown(token)}", hint="Give a smaller token_id.")
        return index, wish.id
    name = token if wish.token is None else wish.token
    row = member.ids.get(name)
    if row is None or row >= member.rows:
        what = f"{member.name} has no {'row for the ' if row is not None else ''}token {shown(name)}"
        hint = did_you_mean(name, added_tokens(member)) if added_tokens(member) else None
        raise RequestError(what, where=f"tokenizer.tokens: {shown(token)}", hint=hint)
    return index, row


def _member(members: Sequence[Member], model: Checkpoint) -> Member:
    return next(member for member in members if member.checkpoint is model)


def _said(members: Sequence[Member], plain: Mapping[str, AddedToken]) -> list[str]:
    """What a union means for text."""
    added = {token for member in members[1:] for token in added_tokens(member)}
    foreign = [token for token in plain if token not in added]
    if not foreign:
        return []
    return [
        f"{len(foreign):,} ordinary tokens of other models, such as {shown(foreign[0])}, become added tokens of "
        f"{members[0].name}'s tokenizer: they have rows, but its rules do not make them from text, "
        "except where they appear as they are written"
    ]


def some_tokens(tokens: Sequence[str]) -> str:
    """Up to five tokens for a message, and how many more there are."""
    named = ", ".join(shown(token) for token in tokens[:_SOME])
    return named if len(tokens) <= _SOME else f"{named} and {len(tokens) - _SOME:,} more tokens"


_CONVERT = "Save its tokenizer as tokenizer.json (transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…))."
