"""`rlmerge sensitivity`: measure the diagonal Fisher of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.arguments import OutputPath
from rlmerge.cli.output import emit, emit_json, note
from rlmerge.cli.request import FORMAT
from rlmerge.sensitivity.options import DTYPES, MODES, SensitivityOptions

if TYPE_CHECKING:
    from rlmerge.checkpoint.sensitivity_record import SensitivityResult


@click.command(name="sensitivity")
@click.option("--model", required=True, metavar="MODEL", help="Model directory, or Hub id org/name[@revision].")
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="JSONL of prompt and response (or completion, answer), of chat messages, or of text; a text file with one"
    " sequence a line; or reasoning-gym:TASK[:JSON]. FILE.jsonl:TASK takes the lines of one task.",
)
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="DIR", help="Directory to write.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="empirical",
    show_default=True,
    help="Gradients on the given responses, on the model's own samples, or on those samples that earn a reward.",
)
@click.option("--reward", metavar="REWARD", help="exact, regex:PATTERN or reasoning-gym, with --mode reward.")
@click.option("--sequences", type=int, metavar="N", help="Use the first N examples.  [all; 64 of reasoning-gym]")
@click.option("--samples", type=int, default=1, show_default=True, help="Own samples for each prompt.")
@click.option("--max-length", type=int, default=2048, show_default=True, help="Tokens of prompt and response.")
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="Tokens of an own sample.")
@click.option("--batch-size", type=int, default=1, show_default=True, help="Sequences in a pass; squared one by one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the samples and of reasoning-gym.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Type of the gradients.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto takes a GPU if there is.")
@click.option("--gradient-checkpointing", is_flag=True, help="Recompute activations: less memory, a third more time.")
@click.option("--stream-layers", is_flag=True, help="One pass for each group of layers, holding only its sums.")
@click.option("--gram", is_flag=True, help="Also collect the Gram matrices of layer inputs that regmean needs.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same settings.")
@click.option("--force", is_flag=True, help="Replace an existing output once the new one is complete.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(model: str, data: str, out: Path, quiet: bool, output_format: str, **options: Any) -> None:
    """Measure the diagonal Fisher of a causal language model.

    For every parameter: the mean over sequences of the squared gradient of log π(response | prompt). The methods
    sar_merging, fisher and scf_rkl read the result; regmean reads the matrices that --gram adds.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.sensitivity import measure

    chosen = SensitivityOptions(**options)
    with show_progress(quiet) as progress:
        result = measure(model, data, out, chosen, progress)
    for warning in result.warnings:
        note(f"warning: {warning}")
    if output_format == "json":
        emit_json(result.to_dict())
    else:
        emit(_summary(result))


def _summary(result: SensitivityResult) -> str:
    record = result.record
    lines = [
        f"{result.out}: {result.tensors} tensors, {record.mode} Fisher of {record.model}",
        f"  {record.sequences} sequences, {record.tokens} response tokens; {record.truncated} truncated,"
        f" {record.dropped} dropped, {record.eos_appended} ended with an end of sequence that the data left out",
        f"  {result.seconds:.1f} s, {result.passes} {'pass' if result.passes == 1 else 'passes'},"
        f" peak memory {result.peak_memory / 1e9:.2f} GB",
    ]
    if record.reward:
        lines.insert(2, f"  {record.sequences} of {record.sampled} samples earned the reward '{record.reward}'")
    if record.grams:
        lines.insert(2, f"  Gram matrices of {len(record.grams)} layers over {record.gram_tokens} tokens")
    return "\n".join(lines)
