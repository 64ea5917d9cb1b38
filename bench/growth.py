"""How the cost of a merge grows with the size and number of models and the number of tensors: CPU a byte read.

    python bench/growth.py --plot docs/growth.svg

Mixtures of experts of one size have ever smaller tensors, and more of them. Every merge reads from the page cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from _measure import RLMERGE, common_arguments, measure, median, report, table, workspace
from generate import Spec, generate, llama, moe, quantity

METHODS = ("task_arithmetic", "ties")
SIZES = ("60M", "125M", "250M", "500M", "1B")
COUNTS = (2, 4, 8, 16, 32)
MATRICES = ("4M", "1M", "250K", "60K")


def merge(method: str, models: Sequence[Path], out: Path, repeats: int) -> tuple[float, float]:
    """CPU seconds of one merge, and nanoseconds a byte that it read."""
    base, *experts = map(str, models)
    density = ["-p", "density=0.2"] if method == "ties" else []
    options = ["--no-cache", "--force", "--quiet", "-o", str(out)]
    command = [RLMERGE, "merge", "--method", method, "--base", base, *experts, *density, *options]
    cpu = median([measure(command) for _ in range(repeats)], "cpu")
    read = sum(file.stat().st_size for model in models for file in model.glob("*.safetensors"))
    return cpu, cpu / read * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="parameters of models merged by threes")
    parser.add_argument("--counts", nargs="*", type=int, default=COUNTS, help=f"experts of models of {SIZES[0]}")
    parser.add_argument("--matrices", nargs="*", default=MATRICES, help="entries of matrices in mixtures of experts")
    parser.add_argument("--mixture", default="250M", help="parameters of a mixture of experts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="write the figures as SVG")
    common_arguments(parser)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    by_count: dict[str, list[tuple[float, float]]] = {}
    with workspace("growth", arguments.keep) as work:
        cases = [(llama(quantity(size)), size, 3, False) for size in arguments.sizes]
        cases += [(llama(quantity(SIZES[0])), SIZES[0], count, True) for count in arguments.counts]
        size = arguments.mixture
        cases += [(moe(quantity(size), quantity(each)), size, 3, False) for each in arguments.matrices]
        for (shapes, config), size, count, plotted in cases:
            models = generate(work / "models", shapes, config, Spec(experts=count))
            for method in METHODS:
                cpu, each = merge(method, models, work / "out", arguments.repeats)
                rows.append([method, size, f"{len(shapes):,}", str(count), f"{cpu:.2f}", f"{each:.2f}"])
                if plotted:
                    by_count.setdefault(method, []).append((float(count), each))
            for model in models:
                for file in model.iterdir():
                    file.unlink()
                model.rmdir()
    if arguments.plot:
        arguments.plot.write_text(standalone(_plot(by_count), METHODS), encoding="utf-8")
    body = table(["method", "parameters", "tensors", "experts", "CPU s", "ns a byte read"], rows)
    report(
        "Growth with size and number of models and tensors",
        f"Medians of {arguments.repeats}.\n\n{body}",
        arguments.record,
    )


def _plot(series: dict[str, list[tuple[float, float]]]) -> str:
    from rlmerge.report.curves import Curve, Point, curve_plot

    curves = [
        Curve(method, color, [Point(x, y) for x, y in points], toggled=False)
        for color, (method, points) in enumerate(series.items())
    ]
    return curve_plot(
        "CPU a byte that is read",
        "Nanoseconds of CPU a byte read, by the number of experts.",
        curves,
        x_label="experts",
        y_label="ns a byte",
        log_x=True,
    )


STYLE = """
svg { font: 11px system-ui, sans-serif; background: #fff } .grid { stroke: #ddd } .tick, .label { fill: #555 }
.line { fill: none; stroke-width: 2 } .s0 .line { stroke: #2563eb } .s1 .line { stroke: #d97706 }
.mark.s0, .key.s0 { fill: #2563eb } .mark.s1, .key.s1 { fill: #d97706 }
"""


def standalone(plot: str, names: Sequence[str]) -> str:
    """A plot of a page as a file of its own: with a name space, a style and the names of its curves."""
    keys = "".join(
        f'<text x="{70 + 120 * place}" y="12" class="key s{place}">{name}</text>' for place, name in enumerate(names)
    )
    head, rest = plot.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" width="420" height="260"', 1)
    return f"{head}><style>{STYLE}</style>{rest.removesuffix('</svg>')}{keys}</svg>\n"


if __name__ == "__main__":
    main()
