"""How several studies compare: terminal, and Markdown with a picture of each figure by the size of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlmerge.report.console import render
from rlmerge.report.curves import Curve, Point
from rlmerge.text import plain
from rlmerge_lab.claims.comparison import Comparison, Judged, Line
from rlmerge_lab.claims.figure import Figure, mean
from rlmerge_lab.claims.trend import TREND_RULE

from .charts import lines
from .markdown import PAGE, table, text
from .parts import NONE, Picture, Sheet
from .standalone import standalone
from .words import GROUPS, MARKS, difference, points

if TYPE_CHECKING:
    from rich.console import RenderableType

TITLE = "How the verdicts change with size"


def comparison_text(found: Comparison, *, width: int, color: bool) -> str:
    """The comparison in at most ``width`` columns, 60 or more."""
    from rich.text import Text

    parts: list[RenderableType] = [Text(TITLE, style="bold"), ""]
    parts += [Text(plain(f"{study.label}, {study.words}, {_seeds(study)}")) for study in found.studies]
    for line in found.lines:
        said = [Text(plain(words)) for words in (*_values(found, line), *(f"  {one}" for one in _trends(line)))]
        parts += ["", Text(line.claim, style="bold"), *said]
    parts += ["", Text(TREND_RULE, style="dim")]
    return render(parts, width, color)


def comparison_markdown(found: Comparison, command: str) -> dict[str, str]:
    """File names and contents: ``README.md`` and a picture for each figure."""
    drawn = [_picture(line, number, found) for number, line in enumerate(found.lines)]
    parts = [
        f"# {TITLE}",
        "This page is the output of the command below; no number on it was typed.",
        f"```bash\n{plain(command)}\n```",
        table(_studies(found)),
        text(TREND_RULE),
        "## Every figure",
        table(_overview(found)) if found.lines else "No figure is in two of the studies.",
    ]
    for group, title in GROUPS.items():
        members = [(line, picture) for line, picture in zip(found.lines, drawn, strict=True) if line.group == group]
        parts += [f"## {title}"] if members else []
        parts += [part for line, picture in members for part in _figure(found, line, picture)]
    pictures = {f"{picture.key}.svg": standalone(picture.svg, picture.legend) for picture in drawn}
    return {PAGE: "\n\n".join(parts) + "\n", **pictures}


def _figure(found: Comparison, line: Line, picture: Picture) -> list[str]:
    """A claim, its figure in every study, the trends, and the picture."""
    trends = "\n".join(f"- {text(words)}" for words in _trends(line))
    shown = f"![{text(line.claim)}]({picture.key}.svg)"
    parts = [f"### {text(line.claim)}", f"{text(line.name)}:", table(_sheet(found, line)), trends, shown]
    return [part for part in parts if part]


def _studies(found: Comparison) -> Sheet:
    rows = [
        [
            study.profile,
            f"{study.weights:,}",
            NONE if study.vocabulary is None else f"{study.vocabulary:,}",
            str(study.seeds),
        ]
        for study in found.studies
    ]
    return Sheet("", ["profile", "weights", "tokens of the vocabulary", "seeds"], rows)


def _overview(found: Comparison) -> Sheet:
    """Each figure in a row: its value in every study, and its trends."""
    rows = [
        [
            line.claim,
            *(_cell(figure, verdict) for figure, verdict in zip(line.figures, line.verdicts, strict=True)),
            "; ".join(_trends(line)) or NONE,
        ]
        for line in found.lines
    ]
    return Sheet("", ["claim", *(study.label for study in found.studies), "trend"], rows)


def _sheet(found: Comparison, line: Line) -> Sheet:
    rows = [
        [study.label, study.words, *_pair(figure, verdict)]
        for study, figure, verdict in zip(found.studies, line.figures, line.verdicts, strict=True)
        if figure is not None
    ]
    return Sheet("", ["study", "vocabulary", "figure", "verdict"], rows)


def _pair(figure: Figure, verdict: str | None) -> tuple[str, str]:
    return difference(figure.to_dict()), NONE if verdict is None else f"{MARKS[verdict]} {verdict}"


def _cell(figure: Figure | None, verdict: str | None) -> str:
    if figure is None or verdict is None:
        return NONE
    return f"{MARKS[verdict]} {difference(figure.to_dict())}"


def _values(found: Comparison, line: Line) -> list[str]:
    return [
        f"  {study.label}: {_cell(figure, verdict)}"
        for study, figure, verdict in zip(found.studies, line.figures, line.verdicts, strict=True)
        if figure is not None
    ]


def _trends(line: Line) -> list[str]:
    """``vocabulary of 2,048 tokens: falls, −5.0 points per decade of weights [−8.0, −2.0]``."""
    share = next(figure.margin.unit == "share" for figure in line.figures if figure)

    def amount(value: float) -> str:
        return points(value) if share else f"{value:.3g}".replace("-", "−")

    said: list[str] = []
    for words, one in line.trends.items():
        if one.slope is None or one.bounds is None:
            said.append(f"{words}: {one.direction}")
            continue
        unit = " points" if share else ""
        ends = ", ".join(map(amount, one.bounds))
        said.append(f"{words}: {one.direction}, {amount(one.slope)}{unit} per decade of weights [{ends}]")
    return said


def _picture(line: Line, number: int, found: Comparison) -> Picture:
    """The figure over the number of weights, a curve for each vocabulary."""
    curves: list[Curve] = []
    for color, words in enumerate(dict.fromkeys(study.words for study in found.studies)):
        drawn = [
            Point(study.weights, *_ends(figure))
            for study, figure in zip(found.studies, line.figures, strict=True)
            if figure and study.words == words
        ]
        if drawn:
            curves.append(Curve(words, color, drawn, toggled=False))
    percent = next(figure.margin.unit == "share" for figure in line.figures if figure)
    note = f"{line.name}, by the number of weights. Bands: 95 % over seeds."
    return lines(
        f"{line.key}-{number}", line.claim, note, curves, x_label="weights", y_label="difference", percent=percent,
        log="x", references=(0.0,),
    )  # fmt: skip


def _ends(figure: Figure) -> tuple[float, float | None, float | None]:
    low, high = figure.bounds or (None, None)
    return mean(figure.differences), low, high


def _seeds(study: Judged) -> str:
    return f"{study.seeds} seed{'' if study.seeds == 1 else 's'}"
