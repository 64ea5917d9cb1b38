"""The same weights under other names: wrappers of trainers, layouts of vision-language models, experts of a MoE.

Everything is derived from names and shapes: one model's tensors are seen under the names of another, by renaming, by
taking parts of fused tensors, or by stacking single ones. Nothing is renamed unless all of it fits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rlmerge.checkpoint import Source
from rlmerge.checkpoint.compose import Renamed, joined, part, row, stacked
from rlmerge.frozen import frozen

_WRAPPERS = re.compile(
    r"""(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|_module|_fpw_module)\.
      | ^(?:module\.)+ | ^base_model\.model\.""",
    re.VERBOSE,
)
"""What torch.compile, FSDP, activation checkpointing, Lightning, DeepSpeed and DDP put into names."""

_MARKS = ("_orig_mod.", "module.", "base_model.")
"""One of them is in every name that trainers have wrapped."""

_ALIASES = (
    (re.compile(r"^model\.language_model\.(?=lm_head\.)"), ""),
    (re.compile(r"^language_model\.(?=lm_head\.)"), ""),
    (re.compile(r"^language_model\.model\."), "model."),
    (re.compile(r"^model\.language_model\.(?:model\.)?"), "model."),
    (
        re.compile(
            r"^model\.(?=(?:visual|vision_tower|vision_model|audio_tower|multi_modal_projector|mm_projector)\.)"
        ),
        "",
    ),
    (re.compile(r"^model\.(?=image_newline$)"), ""),
    (re.compile(r"\.block_sparse_moe\."), ".mlp."),
    (re.compile(r"\.gamma$"), ".weight"),
    (re.compile(r"\.beta$"), ".bias"),
)
"""Layouts of one architecture in checkpoints of different ages, each rewritten to one of them."""

_PARTS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}
_SINGLE = re.compile(
    r"^(?P<stem>.*\.experts)\.(?P<index>\d{1,5})\.(?P<part>gate_proj|up_proj|down_proj|w[123])\.weight$"
)
_FUSED = re.compile(r"^(?P<stem>.*\.experts)\.(?P<part>gate_up_proj|down_proj)(?:\.weight)?$")


def unwrapped(name: str) -> str:
    """``name`` without what trainers wrap modules in."""
    return _WRAPPERS.sub("", name)


def canonical(name: str) -> str:
    """One spelling for all names of a tensor that different versions of one architecture use."""
    name = unwrapped(name)
    for pattern, replacement in _ALIASES:
        name = pattern.sub(replacement, name)
    return name


@frozen
class Renaming:
    """One model's tensors under another's names: what was found, and a sentence for each kind of difference."""

    tensors: Mapping[str, Source]
    notes: tuple[str, ...]


def unwrap(tensors: Mapping[str, Source], label: str) -> Renaming:
    """A model's tensors without wrappers in their names, unless two would then be the same."""
    text = "\n".join(tensors)
    if not any(mark in text for mark in _MARKS):
        return Renaming(tensors, ())
    names = {name: unwrapped(name) for name in tensors}
    changed = [name for name, new in names.items() if name != new]
    if not changed or len(set(names.values())) < len(names):
        return Renaming(tensors, ())
    found = {new: _renamed(tensors[name], new) for name, new in names.items()}
    return Renaming(found, (f"{label}: {_example(changed[0], names[changed[0]], len(changed))}",))


def rename_like(tensors: Mapping[str, Source], reference: Mapping[str, Source], label: str) -> Renaming:
    """``tensors`` under the names of ``reference``, as far as they can be told; the rest keep theirs."""
    if tensors.keys() == reference.keys():
        return Renaming(tensors, ())
    found: dict[str, Source] = {name: source for name, source in tensors.items() if name in reference}
    left = {name: source for name, source in tensors.items() if name not in reference}
    open_ = {name: source for name, source in reference.items() if name not in found}
    notes: list[str] = []
    for step in (_by_alias, _by_experts, _by_prefix):
        if not left or not open_:
            break
        renamed = step(left, open_)
        for new, (source, used) in renamed.items():
            found[new] = source
            open_.pop(new, None)
            for name in used:
                left.pop(name, None)
        if renamed:
            new, (_, used) = next(iter(renamed.items()))
            notes.append(f"{label}: {_example(used[0], new, len(renamed))}")
    return Renaming({**found, **left}, tuple(notes))


Found = dict[str, tuple[Source, tuple[str, ...]]]
"""By the reference's name: a source, and the names it is made of."""


def _by_alias(left: Mapping[str, Source], open_: Mapping[str, Source]) -> Found:
    """Names that are equal once wrappers and layouts are undone, where that is one to one."""
    theirs, ours = _unique(left), _unique(open_)
    return {
        ours[key]: (_renamed(left[name], ours[key]), (name,))
        for key, name in theirs.items()
        if key in ours and left[name].shape == open_[ours[key]].shape
    }


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Canonical name → name, without those that two names share."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(canonical(name), []).append(name)
    return {key: found[0] for key, found in by_key.items() if len(found) == 1}


def _by_experts(left: Mapping[str, Source], open_: Mapping[str, Source]) -> Found:
    """Experts of a MoE stored one by one where the reference has them fused, and the other way round."""
    singles: dict[str, dict[tuple[int, str], str]] = {}
    fused: dict[tuple[str, str], str] = {}
    for name in left:
        if match := _SINGLE.match(name):
            key = int(match["index"]), _PARTS[match["part"]]
            singles.setdefault(canonical(match["stem"] + ".")[:-1], {})[key] = name
        elif match := _FUSED.match(name):
            fused[canonical(match["stem"] + ".")[:-1], match["part"]] = name
    found: Found = {}
    for name, target in open_.items():
        made = None
        if match := _FUSED.match(name):
            made = _fuse(name, target.shape, match["part"], singles.get(canonical(match["stem"] + ".")[:-1], {}), left)
        elif match := _SINGLE.match(name):
            kind = _PARTS[match["part"]]
            whole = fused.get((canonical(match["stem"] + ".")[:-1], "down_proj" if kind == "down" else "gate_up_proj"))
            if whole is not None:
                made = _pick(name, target.shape, kind, int(match["index"]), whole, left)
        if made is not None:
            found[name] = made
    return found


def _fuse(
    name: str,
    shape: tuple[int, ...],
    kind: str,
    singles: Mapping[tuple[int, str], str],
    left: Mapping[str, Source],
) -> tuple[Source, tuple[str, ...]] | None:
    """All experts' matrices as [experts, rows, columns]; gate and up one after the other along the rows."""
    if len(shape) != 3:
        return None
    parts = ("down",) if kind == "down_proj" else ("gate", "up")
    used = [tuple(singles.get((index, part_), "") for part_ in parts) for index in range(shape[0])]
    if not all(all(names) for names in used) or any(index >= shape[0] for index, _ in singles):
        return None
    rows, columns = shape[1] // len(parts), shape[2]
    if any(left[each].shape != (rows, columns) for names in used for each in names):
        return None
    experts = [joined(name, [left[each] for each in names]) for names in used]
    return stacked(name, experts), tuple(each for names in used for each in names)


def _pick(
    name: str, shape: tuple[int, ...], kind: str, index: int, whole: str, left: Mapping[str, Source]
) -> tuple[Source, tuple[str, ...]] | None:
    """One expert's matrix out of a fused tensor [experts, rows, columns]."""
    source = left[whole]
    if len(source.shape) != 3 or len(shape) != 2 or index >= source.shape[0]:
        return None
    rows, columns = shape
    if source.shape[1:] != (rows * (1 if kind == "down" else 2), columns):
        return None
    matrix = row(name, source, index)
    if kind == "down":
        return matrix, (whole,)
    first = 0 if kind == "gate" else rows
    return part(name, matrix, first, first + rows), (whole,)


def _by_prefix(left: Mapping[str, Source], open_: Mapping[str, Source]) -> Found:
    """Names that differ by a prefix alone, where that maps every name under it onto a tensor of its shape."""
    endings: dict[str, list[str]] = {}
    for name in open_:
        for ending in _endings(name):
            endings.setdefault(ending, []).append(name)
    rules: Counter[tuple[str, str]] = Counter()
    for name, source in left.items():
        for ending in _endings(name):
            candidates = [other for other in endings.get(ending, ()) if open_[other].shape == source.shape]
            if len(candidates) == 1:
                rules[name.removesuffix(ending), candidates[0].removesuffix(ending)] += 1
            if candidates:
                break
    found: Found = {}
    used: set[str] = set()
    for (old, new), _ in rules.most_common():
        members = [name for name in left if name.startswith(old) and name not in used]
        targets = [new + name.removeprefix(old) for name in members]
        if members and all(
            target in open_ and target not in found and open_[target].shape == left[name].shape
            for name, target in zip(members, targets, strict=True)
        ):
            found |= {t: (_renamed(left[n], t), (n,)) for n, t in zip(members, targets, strict=True)}
            used.update(members)
    return found


def _endings(name: str) -> Sequence[str]:
    """``name`` and what is left of it without its first parts, longest first; at least its last two parts."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(max(1, len(parts) - 1))]


def _renamed(source: Source, name: str) -> Source:
    return source if source.name == name else Renamed(source, name)


def _example(old: str, new: str, count: int) -> str:
    more = f" and {count - 1} more" if count > 1 else ""
    return f"'{old}' is taken for '{new}'{more}"
