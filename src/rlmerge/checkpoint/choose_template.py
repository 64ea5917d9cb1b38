"""Which chat template an output gets: what its experts agree on, or what the recipe asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlmerge.checkpoint.align import added_tokens, some_tokens
from rlmerge.checkpoint.chat import Templates, markers
from rlmerge.checkpoint.templates import named_template, template_fault
from rlmerge.checkpoint.vocabulary import Member, Vocabulary
from rlmerge.errors import RequestError


def choose_template(
    vocabulary: Vocabulary,
    leaders: Sequence[Member],
    others: Sequence[Member],
    wish: Templates | str | None,
    warnings: list[str],
    notes: list[str],
) -> Templates | None:
    """The templates to write, None where those of the tokenizer's donor stay as they are.

    ``leaders`` decide where the recipe has no ``wish``; what is lost of ``others`` is a warning.
    RequestError for a wish that is no template, or one that does not compile.
    """
    present = _templates(vocabulary.donor)
    if wish is None:
        chosen = _shared(vocabulary, leaders, others, warnings, notes)
    else:
        chosen = _wished(vocabulary, wish, notes)
        for text in chosen.texts:
            fault = template_fault(text)
            if fault is not None:
                hint = "Correct it, or choose another template."
                raise RequestError(f"the chat template does not compile: {fault}", where="chat_template", hint=hint)
    for text in chosen.texts:
        _check(vocabulary, text, warnings, copied=wish is None)
    return None if chosen.says_same(present) else chosen


def _wished(vocabulary: Vocabulary, wish: Templates | str, notes: list[str]) -> Templates:
    if isinstance(wish, Templates):
        if not wish:
            hint = "Name a model that has one, or a template's name or text."
            raise RequestError("the model has no chat template", where="chat_template", hint=hint)
        return wish
    if wish != "auto":
        return Templates(named_template(wish))
    texts = [_templates(member).default for member in vocabulary.members]
    stripped = [text.strip() for text in texts if text is not None]
    if not stripped:
        notes.append("no model has a chat template, so the output has none")
        return Templates()
    # The most frequent; Counter keeps the order of the models among equals.
    text, _ = Counter(stripped).most_common(1)[0]
    owner = next(member for member in vocabulary.members if (_templates(member).default or "").strip() == text)
    notes.append(f"the chat template is that of {owner.name}")
    return _templates(owner)


def _shared(
    vocabulary: Vocabulary,
    leaders: Sequence[Member],
    others: Sequence[Member],
    warnings: list[str],
    notes: list[str],
) -> Templates:
    """What all leaders that have templates have alike, beside the base's named ones; else the base's."""
    base, donor = vocabulary.members[0], vocabulary.donor
    chosen, owner = _templates(base), base
    chatting = [member for member in leaders if _templates(member)]
    if list(leaders) == [donor] and not vocabulary.by_position:
        chosen, owner = _templates(donor), donor
    elif chatting and all(_templates(member).says_same(_templates(chatting[0])) for member in chatting):
        theirs = _templates(chatting[0])
        missing = _missing(vocabulary, chatting[0], theirs)
        if missing:
            warnings.append(
                f"the chat template of {chatting[0].name} uses {some_tokens(missing)}, "
                "which the output's tokenizer lacks"
            )
        else:
            if not _same(theirs.default, chosen.default):
                names = ", ".join(member.name for member in chatting)
                verb = "share" if len(chatting) > 1 else "has"
                had = f"{base.name} has {'another' if chosen else 'none'}"
                notes.append(f"the chat template is the one that {names} {verb} ({had})")
            default = chosen.default if theirs.default is None else theirs.default
            return Templates(default, {**chosen.named, **theirs.named})
    for member in (base, *others):
        theirs = _templates(member).default
        if not _same(theirs, chosen.default):
            whose = f"which is {owner.name}'s" if chosen else "which has none"
            warnings.append(
                f"{member.name} has another chat template than the output, {whose} "
                "(chat_template: auto, a model or a text chooses)"
            )
    return chosen


def _same(theirs: str | None, ours: str | None) -> bool:
    """Whether nothing of a template is lost with another."""
    return theirs is None or (ours is not None and theirs.strip() == ours.strip())


def _missing(vocabulary: Vocabulary, member: Member, templates: Templates) -> list[str]:
    """Tokens of a member that its templates write and the output does not have."""
    lacking = [token for token in added_tokens(member) if token not in vocabulary.ids]
    return [token for token in lacking if any(token in text for text in templates.texts)]


def _check(vocabulary: Vocabulary, text: str, warnings: list[str], *, copied: bool) -> None:
    if copied:
        fault = template_fault(text)
        if fault is not None:
            warnings.append(f"the chat template does not compile: {fault}")
    unknown = sorted(mark for mark in markers(text) if vocabulary.ids and mark not in vocabulary.ids)
    if unknown:
        warnings.append(f"the chat template writes {some_tokens(unknown)}, no token of the output's tokenizer")


def _templates(member: Member) -> Templates:
    return member.tokenizer.templates if member.tokenizer else Templates()
