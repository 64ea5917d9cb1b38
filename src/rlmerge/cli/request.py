"""The arguments `merge` and `plan` share, and what they ask for: a recipe and the options of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from rlmerge.cli.arguments import Size
from rlmerge.cli.mergekit import mergekit_options, translate

if TYPE_CHECKING:
    from rlmerge.options import Options
    from rlmerge.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

FORMAT = click.option(
    "--format", "output_format", type=click.Choice(["human", "json"]), default="human", help="What stdout carries."
)

ON_NONFINITE = click.option(
    "--on-nonfinite",
    type=click.Choice(["error", "keep", "zero"]),
    default="error",
    show_default=True,
    help="What to do about NaN and infinity in an input.",
)

_REQUEST = (
    click.argument("inputs", nargs=-1, metavar="RECIPE.yaml | --method NAME EXPERT..."),
    click.option("--method", metavar="NAME", help="Merge the models given as arguments with this method."),
    click.option("--base", metavar="MODEL", help="With --method: the model the experts were trained from."),
    click.option(
        "-p",
        "--parameter",
        "parameters",
        multiple=True,
        metavar="KEY=VALUE",
        help="With --method: a parameter; weight=0.5,0.3 gives one value per expert.",
    ),
    click.option("--memory", type=Size(), default="512MiB", show_default=True, help="Memory budget of the run."),
    click.option("--workers", type=click.IntRange(min=1), help="Threads; as many as there are cores by default."),
    click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="For random methods."),
    click.option("--dtype", metavar="TYPE", help="Output type unless --out-dtype; float64 also computes in it."),
    click.option("--out-dtype", metavar="TYPE", help="Type of the merged weights, like bfloat16; or like-base."),
    click.option(
        "--rounding",
        type=click.Choice(["nearest", "stochastic"]),
        default="nearest",
        show_default=True,
        help="How merged values become the output type.",
    ),
    click.option("--shard-size", type=Size(), default="5GB", show_default=True, help="Largest output shard."),
    click.option("--resume", is_flag=True, help="Continue an interrupted merge into the same directory."),
    click.option("--force", is_flag=True, help="Replace an existing output directory once the new one is complete."),
    ON_NONFINITE,
    click.option("--cache/--no-cache", default=True, show_default=True, help="Keep statistics of models for later."),
    click.option("--trust-code", is_flag=True, help="Copy the Python files that a model's configuration names."),
)


def request_options(command: Command) -> Command:
    """Add the arguments that describe a merge to a click command, and mergekit's names for them."""
    for add in reversed(_REQUEST):
        command = add(command)
    return mergekit_options(command)


def read_request(request: dict[str, Any]) -> tuple[Recipe, Options]:
    """The one recipe and the options of a command line; as ``read_requests``, and RequestError where there are more."""
    recipes, options = read_requests(request)
    from rlmerge.recipe.load import only

    return only(recipes), options


def read_requests(request: dict[str, Any]) -> tuple[tuple[Recipe, ...], Options]:
    """The recipes of a command line in the order in which they run, and the options of the run.

    ``--dtype`` and ``--out-dtype`` speak of the last recipe, which makes the result. UsageError, RequestError or
    RecipeError when the command line asks for nonsense.
    """
    from rlmerge.options import Options
    from rlmerge.recipe import canonical_dtype

    given = {name for name in request if _is_given(name)}
    request, warnings = translate(request, given)
    inputs, parameters = request.pop("inputs"), request.pop("parameters")
    method, base = request.pop("method"), request.pop("base")
    types: dict[str, Any] = {
        name: canonical_dtype(request[name], f"--{name.replace('_', '-')}", output=name == "out_dtype")
        for name in ("dtype", "out_dtype")
        if request[name]
    }
    *stages, last = _read_recipes(inputs, method, base, parameters)
    last = replace(last, warnings=(*warnings, *last.warnings), **types)
    options = request | types
    if last.locked is not None:
        options |= last.locked.fill({name: value for name, value in options.items() if name in given})
    return (*stages, last), Options(**options)


def _is_given(name: str) -> bool:
    """Whether the command line itself says ``name``."""
    return _context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _read_recipes(
    inputs: Sequence[str], method: str | None, base: str | None, parameters: Sequence[str]
) -> tuple[Recipe, ...]:
    from rlmerge.recipe import load_recipes, recipe_from_flags

    if method is not None:
        return (recipe_from_flags(method, base, inputs, _split(parameters)),)
    if base is not None or parameters:
        flag = "--base" if base is not None else "-p"
        raise click.UsageError(f"{flag} goes with --method; a recipe file says it itself", _context())
    if len(inputs) != 1:
        given = "no recipe is given" if not inputs else f"{len(inputs)} recipes are given"
        is_out = len(inputs) == 2 and not inputs[1].endswith((".yaml", ".yml"))
        hint = f"; the output goes after -o: -o {inputs[1]}" if is_out else ""
        raise click.UsageError(f"{given}; give one recipe file, or --method NAME and models{hint}", _context())
    return load_recipes(Path(inputs[0]))


def _split(parameters: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not name or not equals:
            raise click.UsageError(f"-p {parameter}: write -p KEY=VALUE", _context())
        if name in values:
            raise click.UsageError(f"-p {name} is given twice; one value per expert is -p {name}=0.5,0.3", _context())
        values[name] = value
    return values


def _context() -> click.Context:
    return click.get_current_context()
