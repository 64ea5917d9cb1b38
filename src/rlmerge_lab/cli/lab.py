"""`rlmerge lab`: really trained experts, really scored merges, and the papers' claims judged on them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT
from rlmerge.errors import RequestError

if TYPE_CHECKING:
    from rlmerge_lab.training.directory import Lab

_DIR = click.Path(path_type=Path, file_okay=False)
_WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Processes; as many as cores by default.")
_QUIET = click.option("--quiet", is_flag=True, help="No progress on stderr.")

_TRAINING = (
    click.option("-o", "--out", type=_DIR, required=True, metavar="DIR", help="Where the laboratory is or shall be."),
    click.option("--profile", default="quick", show_default=True, help="One of those that `rlmerge lab --help` lists."),
    click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="So many seeds.  [the profile's]"),
    click.option("--model", metavar="MODEL", help="gpu: the base, a directory or Hub id.  [SmolLM2-135M-Instruct]"),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="gpu: where to train.",
    ),
    _WORKERS,
    _QUIET,
)


def _training_options(command: Any) -> Any:
    for add in reversed(_TRAINING):
        command = add(command)
    return command


@click.group()
def command() -> None:
    """Train experts of one base by reinforcement and by supervision, merge them by every method, judge the claims.

    Profiles: ci (whether it runs), quick (minutes on two cores), full (five seeds, every arm, within 90 minutes),
    characters (five seeds, RL alone), words and words-128 to words-512 (in English, over a real vocabulary), gpu
    (SmolLM2 or your own model on reasoning-gym tasks), smol (SmolLM2 by LoRA, hours on a CPU). Everything is kept by
    content: a run that was killed goes on.
    Needs the extra: pip install 'rlmerge[lab]'.
    """


@command.command()
@_training_options
@FORMAT
def run(output_format: str, **asked: Any) -> None:
    """Train what is missing, study it, and write the report to DIR/report."""
    lab = _train(**asked)
    _report(_study(lab, asked["workers"], asked["quiet"]), lab.root / "report", output_format)


@command.command()
@_training_options
def train(**asked: Any) -> None:
    """Train the bases and experts that are missing."""
    from rlmerge_lab.training.queue import jobs_of

    lab = _train(**asked)
    emit(f"{len(jobs_of(lab))} models in {lab.root}\nNext: rlmerge lab study {lab.root}")


@command.command()
@click.argument("lab_directory", metavar="DIR", type=_DIR)
@_WORKERS
@_QUIET
@FORMAT
def study(lab_directory: Path, workers: int | None, quiet: bool, output_format: str) -> None:
    """Merge the experts of the laboratory in DIR by every method, score the merges, judge the claims."""
    from rlmerge_lab.training.directory import Lab

    _report(_study(Lab.open(lab_directory), workers, quiet), lab_directory / "report", output_format)


@command.command()
@click.argument("study_file", metavar="DIR|STUDY.json[.gz]", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=_DIR, metavar="DIR", help="Where the report goes.  [DIR/report]")
@FORMAT
def report(study_file: Path, out: Path | None, output_format: str) -> None:
    """Judge and show a study that was run: terminal, HTML, and Markdown with pictures. It may be gzipped."""
    _report(_read(study_file), out or _file(study_file).parent, output_format)


@command.command()
@click.argument("studies", metavar="DIR|STUDY.json[.gz]...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=_DIR, required=True, metavar="DIR", help="Where the comparison goes.")
@FORMAT
def compare(studies: tuple[Path, ...], out: Path, output_format: str) -> None:
    """Put studies of several sizes side by side: every deciding figure by number of weights, and whether it grows."""
    from rlmerge.jsondata import write_text
    from rlmerge_lab.claims.comparison import compare as put_together
    from rlmerge_lab.report.comparison import comparison_markdown, comparison_text

    if len(studies) < 2:
        raise RequestError("a comparison needs two studies or more", hint="Name a DIR or STUDY.json for each.")
    found = put_together([(str(study), _read(study)) for study in studies])
    out.mkdir(parents=True, exist_ok=True)
    named = " ".join(shlex.quote(study.name) for study in studies)
    for name, text in comparison_markdown(found, f"rlmerge lab compare {named} -o DIR").items():
        write_text(out / name, text)
    if output_format == "json":
        emit_json(found.to_dict())
    else:
        emit(comparison_text(found, width=width(), color=color()))
        emit(f"Report: {out / 'README.md'}")


def _file(study: Path) -> Path:
    """The file of a study that was named by itself or by its laboratory."""
    if not study.is_dir():
        return study
    own = [study / place / name for place in ("report", ".") for name in ("study.json", "study.json.gz")]
    return next((file for file in own if file.exists()), own[0])


def _read(study: Path) -> dict[str, Any]:
    """A study's content; RequestError when it is none."""
    import gzip

    file = _file(study)
    try:
        content = file.read_bytes()
        found = json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
    except (OSError, ValueError, EOFError) as error:
        hint = "Run the study first: rlmerge lab study DIR"
        raise RequestError(f"holds no study ({error})", where=str(file), hint=hint) from error
    if not isinstance(found, dict) or not str(found.get("schema", "")).startswith("rlmerge.lab.study/"):
        hint = "Name the study.json of a laboratory."
        raise RequestError("is no study of a laboratory", where=str(file), hint=hint)
    return found


def _train(
    out: Path, profile: str, seeds: int | None, model: str | None, device: str, workers: int | None, quiet: bool
) -> Lab:
    from dataclasses import replace

    from rlmerge.cli.progress import show_progress
    from rlmerge_lab.training.directory import Lab
    from rlmerge_lab.training.profiles import profile as profile_of
    from rlmerge_lab.training.queue import train_all

    chosen = profile_of(profile)
    if seeds is not None:
        chosen = replace(chosen, seeds=tuple(range(seeds)))
    if model is not None:
        if not chosen.gym:
            raise RequestError(f"profile '{profile}' trains its own base", hint="--model goes with --profile gpu.")
        chosen = replace(chosen, model=model)
    lab = Lab.create(out, chosen)
    with show_progress(quiet) as progress:
        train_all(lab, workers=workers, progress=progress, device=device)
    return lab


def _study(lab: Lab, workers: int | None, quiet: bool) -> dict[str, Any]:
    """Study ``lab`` and keep the result; it names the command that makes this laboratory and this study."""
    from rlmerge.cli.progress import show_progress
    from rlmerge.jsondata import write_text
    from rlmerge_lab.study import budget_of, run_study
    from rlmerge_lab.training.profiles import PROFILES

    name = lab.profile.name
    own = PROFILES.get(name)
    seeds = "" if own and own.seeds == lab.seeds else f" --seeds {len(lab.seeds)}"
    with show_progress(quiet) as progress:
        command = f"rlmerge lab run -o DIR --profile {name}{seeds}"
        found = run_study(lab, budget_of(name), progress, workers, command=command)
    write_text(lab.root / "report" / "study.json", json.dumps(found, indent=1) + "\n")
    return found


def _report(found: dict[str, Any], out: Path, output_format: str) -> None:
    """Write the report to ``out`` and print it."""
    from rlmerge.jsondata import write_text
    from rlmerge_lab.claims import judge
    from rlmerge_lab.report.markdown import study_markdown
    from rlmerge_lab.report.study import study_html, study_text

    judged = judge(found).to_dict()
    out.mkdir(parents=True, exist_ok=True)
    for name, text in {"report.html": study_html(found, judged), **study_markdown(found, judged)}.items():
        write_text(out / name, text)
    if output_format == "json":
        emit_json({"study": found, "judgement": judged})
    else:
        emit(study_text(found, judged, width=width(), color=color()))
        emit(f"Report: {out / 'report.html'}")
