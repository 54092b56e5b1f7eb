"""``recdistill lm``: a small language model of one's own, where no hub can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from recdistill.cli.teaching import Bars

app = typer.Typer(
    help="Make a small language model from your own titles and histories.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def lm() -> None:
    """Make a small language model from your own titles and histories."""


@app.command()
def train(
    dataset: Annotated[Path, typer.Option(help="Dataset folder, from recdistill data.")],
    out: Annotated[Path, typer.Option(help="Folder to write, of Hugging Face's layout.")],
    hidden_size: Annotated[int, typer.Option(help="Width of the hidden states.")] = 128,
    layers: Annotated[int, typer.Option(help="Transformer layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    vocabulary: Annotated[int, typer.Option(help="Tokens of the byte-level BPE, at most.")] = 4096,
    context: Annotated[int, typer.Option(help="Tokens the model reads.")] = 512,
    epochs: Annotated[float, typer.Option(help="Passes over the histories; 0.5 is half of one.")] = 2.0,
    steps: Annotated[int, typer.Option(help="Steps instead of passes; 0: as --epochs says.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, the largest.")] = 3e-3,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the rate rises.")] = 0.05,
    batch_tokens: Annotated[int, typer.Option(help="Tokens a step.")] = 4096,
    precision: Annotated[str, typer.Option(help="bf16 for products, or float32.")] = "bf16",
    valid_share: Annotated[float, typer.Option(help="Share of the users held out to watch the loss.")] = 0.03,
    domain: Annotated[
        str, typer.Option(help="Prompt template whose way of writing lists is learned, or its file.")
    ] = "generic",
    seed: Annotated[int, typer.Option(help="Of start weights, held-out users and order.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the folder, and start anew.")
    ] = False,
) -> None:
    """Train a small language model from scratch on titles and training histories. A run that was stopped goes on."""
    import math

    from recdistill.cli.teaching import Bars, refuse_existing
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.language_model.prompts import load_template
    from recdistill.teachers.language_model.small import SmallLmOptions, train_small_lm

    refuse_existing(out, overwrite)
    options = SmallLmOptions(
        hidden_size=hidden_size,
        layers=layers,
        heads=heads,
        vocabulary=vocabulary,
        context=context,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        batch_tokens=batch_tokens,
        precision=precision,
        valid_share=valid_share,
        seed=seed,
    )
    template = load_template(domain)
    data = SequenceDataset.load(dataset)
    with Bars() as bars:
        found = train_small_lm(data, out, options, template=template, overwrite=overwrite, on_step=_bar(bars))
    print(
        f"{found['parameters']:,} parameters, {found['vocabulary']:,} tokens; {found['documents']:,} histories of "
        f"{found['tokens_per_epoch']:,} tokens in all, {found['steps']:,} steps"
    )
    print(f"  {'step':>8} {'training loss':>14} {'held-out loss':>14}")
    for record in found["history"]:
        valid = f"{record['valid']:14.4f}" if "valid" in record else f"{'-':>14}"
        best = "  kept" if record["step"] == found["best_step"] else ""
        print(f"  {record['step']:8.0f} {record['train']:14.4f} {valid}{best}")
    if found["valid_loss"] is not None:
        print(f"perplexity of a held-out token: {math.exp(found['valid_loss']):.1f}")
    print(f"{out}: {found['description']}. Use it as: recdistill teach bigrec --model {out}")


def _bar(bars: Bars) -> Callable[[int, int, float], None]:
    """Return what draws one bar with the loss."""
    tasks: list[TaskID] = []

    def hear(done: int, total: int, loss: float) -> None:
        if not tasks:
            tasks.append(bars.progress.add_task("", total=total))
        bars.progress.update(tasks[0], completed=done, description=f"training, loss {loss:.3f}")

    return hear
