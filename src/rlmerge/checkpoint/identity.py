"""What an output is beside its weights: vocabulary, tokenizer, chat template, generation, configuration, files.

Planned from all models at once, before anything is written: every file is opened or rendered here, so that nothing new
can be wrong with it when the weights are done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.align import align, some_tokens
from rlmerge.checkpoint.chat import FOLDER, OLD_FILE, Templates
from rlmerge.checkpoint.choose_template import choose_template
from rlmerge.checkpoint.compare_config import Difference, compare_configs
from rlmerge.checkpoint.config import render, with_rows, with_values
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.remote_code import code_files
from rlmerge.checkpoint.shared import lost_tokens, share
from rlmerge.checkpoint.side_files import find_side_files, left_behind, open_side_file
from rlmerge.checkpoint.source import Source
from rlmerge.checkpoint.special_tokens import GENERATION, generation_of, shown_id, stop_ids, translated
from rlmerge.checkpoint.token_files import edited_tokenizer
from rlmerge.checkpoint.tokenizer import LOOSE_ROLES, TokenizerReader, is_tokenizer_file
from rlmerge.checkpoint.vocabulary import Member, ModelToken, TokenizerSpec, Vocabulary
from rlmerge.frozen import frozen

CONFIG = "config.json"
_MAX_CONFIG = 2**28


@frozen(eq=False)
class Identity:
    """The plan of everything beside the weights.

    ``files`` maps names in the output, some in folders, to a file to copy or to new content. ``config`` is what its
    config.json says; ``with_config`` gives the files after further edits. ``warnings`` name what is lost or doubtful,
    ``notes`` what was taken from where.
    """

    vocabulary: Vocabulary
    files: Mapping[str, InputFile | bytes]
    config: Mapping[str, Any] | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def tensors(self, model: Checkpoint) -> Mapping[str, Source]:
        """A model's tensors with its vocabulary tables in the rows of the output."""
        return self.vocabulary.tensors(model)

    def with_config(self, config: Mapping[str, Any] | None) -> Mapping[str, InputFile | bytes]:
        """``files`` with config.json as edited; the original is copied byte for byte where nothing was."""
        if config is None or config == self.config:
            return self.files
        return {**self.files, CONFIG: render(config)}


def plan_identity(
    base: Checkpoint | None,
    experts: Sequence[Checkpoint],
    *,
    tokenizer: TokenizerSpec | None = None,
    chat_template: Checkpoint | str | None = None,
    trust_code: bool = False,
    compat: bool = False,
) -> Identity:
    """Compare all models and plan what the output ships.

    Without a ``tokenizer`` the output has what the experts agree on, where it holds all that the base has, and else the
    base's; the first expert stands for a base that is not given. ``chat_template`` is ``auto``, a name of
    ``templates.TEMPLATES``, Jinja text, or the model whose template to take. Code that configurations name is copied
    only with ``trust_code``. ``compat`` keeps to mergekit: a vocabulary is cut to its tokens.

    CheckpointError or RequestError with what is wrong, before anything is written.
    """
    reader = TokenizerReader()
    first = base or experts[0]
    further = [x for x in _named(tokenizer) if x not in (first, *experts)]
    members = [Member(x, reader.read(x.side_root)) for x in dict.fromkeys((first, *experts, *further))]
    if tokenizer is None:
        vocabulary = share(members, has_base=base is not None, compat=compat)
    else:
        vocabulary = _aligned(members, tokenizer, compat)
    others = [m for m in vocabulary.members[1:] if m.checkpoint not in further]
    voters = others if base is not None else [vocabulary.members[0], *others]
    leaders = _leaders(vocabulary, voters, tokenizer)
    warnings = [*first.warnings, *vocabulary.warnings]
    notes: list[str] = []
    generation = generation_of(vocabulary, leaders)
    wish = chat_template
    if isinstance(wish, Checkpoint):
        named = reader.read(wish.side_root)
        wish = named.templates if named is not None else Templates()
    choice = choose_template(vocabulary, leaders, others, wish, warnings, notes)
    warnings += generation.warnings
    notes = [
        *(["; ".join(taken)] if (taken := [*vocabulary.taken, *notes, *generation.notes]) else []),
        *vocabulary.notes,
    ]
    roles = _roles(vocabulary, leaders)
    warnings += _lost(vocabulary, voters, generation.stops, roles)
    files = _files(vocabulary, choice, roles)
    if generation.file is not None:
        files[GENERATION] = generation.file
    config = _config(vocabulary, generation.edits, tokenizer, warnings)
    _compare(first, others, warnings, notes)
    if config is not None:
        original = first.side_root / CONFIG
        files[CONFIG] = original if _holds(original, config) else render(config)
    files |= _code(vocabulary, files, trust_code, warnings)
    behind = left_behind(first.side_root, list(files))
    if behind:
        shown = ", ".join(behind[:8]) + (f" and {len(behind) - 8} more" if len(behind) > 8 else "")
        notes.append(f"not copied from {first.reference}: {shown}")
    opened = {
        name: content if isinstance(content, bytes) else open_side_file(content)
        for name, content in sorted(files.items())
    }
    return Identity(vocabulary, opened, config, tuple(dict.fromkeys(warnings)), tuple(dict.fromkeys(notes)))


def _named(spec: TokenizerSpec | None) -> list[Checkpoint]:
    """Models that only the recipe's ``tokenizer`` may name."""
    if spec is None:
        return []
    found = [] if isinstance(spec.source, str) else [spec.source]
    return [*found, *(wish.source.model for wish in spec.tokens.values() if isinstance(wish.source, ModelToken))]


def _aligned(members: list[Member], spec: TokenizerSpec, compat: bool) -> Vocabulary:
    base = members[0]
    unread = any(member.tokenizer is not None and member.tokenizer.table is None for member in members)
    if spec.source == "base" and unread and not spec.tokens and all(member.rows == base.rows for member in members):
        # Nothing is to be moved, so tokens in a format that is not read do not have to be.
        return share(members, compat=True)
    return align(members, spec, compat=compat)


def _leaders(vocabulary: Vocabulary, voters: Sequence[Member], spec: TokenizerSpec | None) -> list[Member]:
    """Whose word counts for chat and generation: the experts' unless the recipe names a model."""
    if spec is None or spec.source == "union":
        return list(voters)
    return [] if spec.source == "base" else [vocabulary.donor]


def _roles(vocabulary: Vocabulary, leaders: Sequence[Member]) -> dict[str, str]:
    """Loose roles, such as padding, that all leaders with a tokenizer give to one token and the donor does not."""
    donor = vocabulary.donor.tokenizer
    speaking = [member.tokenizer.special for member in leaders if member.tokenizer is not None]
    found: dict[str, str] = {}
    for role in LOOSE_ROLES if donor is not None and speaking else ():
        token = speaking[0].get(role)
        agreed = all(special.get(role) == token for special in speaking)
        new = donor is not None and donor.special.get(role) != token
        if isinstance(token, str) and agreed and new and token in vocabulary.ids:
            found[role] = token
    return found


def _lost(
    vocabulary: Vocabulary, others: Sequence[Member], stops: Sequence[int], roles: Mapping[str, str]
) -> list[str]:
    """What models can tell apart or stop at and the output cannot."""
    found: list[str] = []
    for member in others:
        gone = lost_tokens(vocabulary, member)
        if gone:
            found.append(f"the output's tokenizer lacks {some_tokens(gone)} of {member.name}")
        missing = [x for x in stop_ids(vocabulary, member) if x not in stops]
        if missing:
            named = ", ".join(shown_id(vocabulary, x) for x in missing)
            found.append(f"{member.name} stops at {named}, the output does not")
        manner = _manner(vocabulary.donor, member, roles)
        if manner:
            found.append(manner)
    return found


def _manner(donor: Member, member: Member, roles: Mapping[str, str]) -> str | None:
    """In what a member's tokenizer makes other tokens of a text than the output's."""
    mine, other = donor.tokenizer, member.tokenizer
    if mine is None or other is None or mine.table is None or other.table is None:
        return None
    ours, theirs = {**mine.special, **roles}, other.special
    keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    said = [f"{key} {_json(theirs.get(key))} ({_json(ours.get(key))} in the output)" for key in keys]
    if mine.digest != other.digest and mine.file.name == other.file.name:
        said.append("other rules to split text")
    return f"the tokenizer of {member.name} has {', '.join(said)}" if said else None


def _files(vocabulary: Vocabulary, choice: Templates | None, roles: Mapping[str, str]) -> dict[str, Path | bytes]:
    """Side files of the first model, the tokenizer's from its donor, with templates and new tokens in their places."""
    first, donor = vocabulary.members[0].checkpoint, vocabulary.donor.checkpoint
    files: dict[str, Path | bytes] = dict(_side_files(first))
    if donor is not first:
        files = {name: path for name, path in files.items() if not is_tokenizer_file(name)}
        files |= {name: path for name, path in _side_files(donor).items() if is_tokenizer_file(name)}
    tokenizer = vocabulary.donor.tokenizer
    if tokenizer is not None:
        files |= edited_tokenizer(tokenizer, vocabulary.appended, choice, roles, list(files), fresh=donor is not first)
    if choice is not None:
        files = {name: x for name, x in files.items() if name != OLD_FILE and not name.startswith(f"{FOLDER}/")}
        files |= choice.files()
    return files


def _side_files(model: Checkpoint) -> dict[str, Path]:
    root = model.side_root.resolve()
    return {path.relative_to(root).as_posix(): path for path in find_side_files(root)}


def _config(
    vocabulary: Vocabulary, edits: Mapping[str, Any], spec: TokenizerSpec | None, warnings: list[str]
) -> dict[str, Any] | None:
    first = vocabulary.members[0]
    if first.checkpoint.config is None:
        return None
    config = dict(first.checkpoint.config)
    if spec is not None and vocabulary.donor is not first:
        config, lost = translated(vocabulary, config)
        if lost:
            warnings.append(f"{', '.join(lost)} of config.json: {vocabulary.donor.name}'s tokenizer has no such token")
    config = with_values(config, edits)
    if vocabulary.size != first.rows and first.rows:
        config = with_rows(config, vocabulary.size)
    return config


def _compare(first: Checkpoint, others: Sequence[Member], warnings: list[str], notes: list[str]) -> None:
    """Say of each model whose config.json makes another computation of the same weights in what it differs."""
    for member in others:
        theirs = member.checkpoint.config
        found = compare_configs(first.config or {}, theirs) if theirs and first.config else ()
        # Whether the output's head is its own is decided by the weights, and said there.
        found = [x for x in found if x.key != "tie_word_embeddings"]
        counts = [x for x in found if x.kind == "computation" or (x.kind == "length" and _longer(x.theirs, x.ours))]
        if counts:
            warnings.append(
                f"config.json of {member.name} differs: {_listed(counts)} in the output, which runs all weights as "
                f"{first.reference} says"
            )
        rest = [x for x in found if x not in counts]
        if rest:
            notes.append(f"config.json of {member.name} also differs in {_listed(rest)}")


def _listed(differences: Sequence[Difference]) -> str:
    return ", ".join(str(difference) for difference in differences)


def _longer(theirs: Any, ours: Any) -> bool:
    return isinstance(theirs, int | float) and (not isinstance(ours, int | float) or theirs > ours)


def _holds(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether a file is this configuration already."""
    if not path.is_file():
        return False
    return strictjson.parse(read_bytes(path, _MAX_CONFIG), str(path), unique_keys=False) == config


def _code(
    vocabulary: Vocabulary, files: Mapping[str, Path | bytes], trusted: bool, warnings: list[str]
) -> dict[str, Path | bytes]:
    """Python files that the output's configurations name, each from the directory its configuration is from."""
    first, donor = vocabulary.members[0].checkpoint, vocabulary.donor.checkpoint
    named = {name: content for name, content in files.items() if name.endswith("config.json") and "/" not in name}
    of_donor = {name: content for name, content in named.items() if donor is not first and is_tokenizer_file(name)}
    rest = {name: content for name, content in named.items() if name not in of_donor}
    found = code_files(first.side_root.resolve(), rest, trusted)
    for name, path in code_files(donor.side_root.resolve(), of_donor, trusted).items():
        if name in found and found[name].read_bytes() != path.read_bytes():
            warnings.append(f"{name} differs in {donor.reference}; the output has that of {first.reference}")
        found.setdefault(name, path)
    return dict(found)


def _json(value: Any) -> str:
    return "unset" if value is None else json.dumps(value)[:60]
