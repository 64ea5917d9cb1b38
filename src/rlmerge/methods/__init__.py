"""Merge methods by name: those that ship, and those that users register.

A method of your own is a decorated formula, or a ``Method`` behind an entry point of the group ``rlmerge.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlmerge.errors import RequestError, did_you_mean

from .method import SUBJECTS, Formula, Method, Parameter, Share, Statistic, Status, arguments

__all__ = [
    "SUBJECTS",
    "Formula",
    "Method",
    "Parameter",
    "Share",
    "Statistic",
    "arguments",
    "get",
    "grouped",
    "method",
    "names",
    "register",
]

_registry: dict[str, Method] = {}
_loaded = False


def register(method: Method) -> Method:
    """Make ``method`` known under its name; RequestError when the name is taken by another."""
    if _registry.get(method.name, method) is not method:
        raise RequestError(f"a method named '{method.name}' is already registered", hint="Choose another name.")
    _registry[method.name] = method
    return method


def method(
    name: str,
    *,
    parameters: Sequence[Parameter] = (),
    summary: str = "",
    paper: str = "unpublished",
    status: Status = "exact",
    **options: Any,
) -> Callable[[Formula], Formula]:
    """Register the decorated formula as a merge method.

    ``formula(xp, base, tau, *, <parameters>)`` gets ``base`` [n] and ``tau`` [K, n] and returns the merged [n]; see
    ``Method`` for ``options``. The formula stays a plain function.
    """

    def decorate(formula: Formula) -> Formula:
        line = summary or (formula.__doc__ or name).strip().splitlines()[0]
        register(Method(name, formula, line, paper, status, tuple(parameters), **options))
        return formula

    return decorate


def get(name: str) -> Method:
    """The method called ``name``; RequestError with the nearest name when there is none."""
    _load()
    if name not in _registry:
        raise RequestError(f"unknown merge method '{name}'", hint=did_you_mean(name, _registry))
    return _registry[name]


def names() -> tuple[str, ...]:
    """All registered names: shipped methods first, by family."""
    _load()
    return tuple(_registry)


def grouped() -> dict[str, list[Method]]:
    """All registered methods by what they look at, in words; groups without methods are left out."""
    known = [get(name) for name in names()]
    found = {words: [method for method in known if method.looks_at == subject] for subject, words in SUBJECTS.items()}
    return {words: group for words, group in found.items() if group}


def _load() -> None:
    global _loaded
    if _loaded:
        return
    _loaded = True
    from . import (
        ace,
        breadcrumbs,
        cabs,
        covariance,
        dare,
        della,
        fisher,
        fusion,
        isotropic,
        karcher,
        knots,
        linear,
        masks,
        nearswap,
        passthrough,
        pcb,
        ram,
        regmean,
        resmerge,
        sar,
        sce,
        scf,
        spherical,
        stock,
        ties,
        wudi,
    )

    sums = (linear, ties, dare, della, breadcrumbs, ram, sce, stock)
    others = (spherical, karcher, nearswap, fusion, passthrough)
    measured = (sar, scf, fisher, regmean)
    masked = (masks, cabs, pcb)
    matrices = (covariance, ace, wudi, isotropic, resmerge, knots)
    families = (*sums, *others, *measured, *masked, *matrices)
    shipped = {m.name: m for family in families for m in family.METHODS}
    users = dict(_registry)
    _registry.clear()
    _registry.update(shipped)
    for own in users.values():
        register(own)
    from importlib.metadata import entry_points

    for entry in entry_points(group="rlmerge.methods"):
        register(entry.load())
