"""Merge methods by name: those that ship, and those that users register.

A method of your own is a decorated formula, or a ``Method`` behind an entry point of the group ``rlmerge.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlmerge.errors import RequestError, did_you_mean

from .method import SUBJECTS, Formula, Method, Parameter, Share, Statistic, Status, arguments

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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

_SHIPPED = {
    "linear": ("linear", "task_arithmetic"),
    "ties": ("ties",),
    "dare": ("dare_linear", "dare_ties"),
    "della": ("della", "della_linear"),
    "breadcrumbs": ("breadcrumbs", "breadcrumbs_ties"),
    "ram": ("ram", "ram_plus", "ramplus_tl", "ram_percentile"),
    "sce": ("sce",),
    "stock": ("model_stock",),
    "spherical": ("slerp", "nuslerp"),
    "karcher": ("karcher", "multislerp"),
    "nearswap": ("nearswap",),
    "fusion": ("arcee_fusion",),
    "passthrough": ("passthrough",),
    "sar": ("sar_merging",),
    "scf": ("scf_rkl",),
    "fisher": ("fisher",),
    "regmean": ("regmean",),
    "masks": ("consensus_ta", "emr"),
    "cabs": ("cabs",),
    "pcb": ("pcb",),
    "covariance": ("covariance", "actmat"),
    "ace": ("ace",),
    "wudi": ("wudi", "swudi"),
    "isotropic": ("tsv", "iso_c", "iso_cts"),
    "resmerge": ("resmerge",),
    "knots": ("knots",),
}
"""The methods of each module, by family."""

_MODULE = {name: module for module, names_ in _SHIPPED.items() for name in names_}

_registry: dict[str, Method] = {}
_loaded = False


def register(method: Method) -> Method:
    """Make ``method`` known under its name; RequestError when the name is taken by another."""
    if _registry.get(method.name, method) is not method or method.name in _MODULE:
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
    if name not in _registry:
        if name in _MODULE:
            _ship(_MODULE[name])
        else:
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


def _ship(module: str) -> None:
    """Register the methods of one module: a merge imports no other."""
    found = import_module(f"{__name__}.{module}").METHODS
    _registry.update({method.name: method for method in found})


def _load() -> None:
    """Register everything there is: shipped methods first, then the users'."""
    global _loaded
    if _loaded:
        return
    users = {name: method for name, method in _registry.items() if name not in _MODULE}
    _registry.clear()
    for module in _SHIPPED:
        _ship(module)
    _registry.update(users)
    from importlib.metadata import entry_points

    for entry in entry_points(group="rlmerge.methods"):
        _bring(entry)
    _loaded = True


def _bring(entry: EntryPoint) -> None:
    """Register the method behind an entry point; RequestError naming its package when that cannot be."""
    try:
        found = entry.load()
        if not isinstance(found, Method):
            raise TypeError(f"{entry.value} is not an rlmerge.methods.Method")
        register(found)
    except (Exception, SystemExit) as error:
        package = entry.dist.name if entry.dist else entry.module
        what = f"its merge method '{entry.name}' cannot be loaded ({type(error).__name__}: {error})"
        raise RequestError(what, where=f"package '{package}'", hint="Update or remove that package.") from error
