"""``recdistill mutual``: a student and a language model teach each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recdistill.cli.teach_item_head import Adapter, ItemText, Model
from recdistill.cli.teaching import Cache, Dataset, Rank

if TYPE_CHECKING:
    from recdistill.config import RunConfig
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.item_head.options import ItemHeadOptions
    from recdistill.train.mutual import MutualOptions


def mutual(
    dataset: Dataset,
    model: Model,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", show_default=False)] = None,
    student: Annotated[str, typer.Option(help="gru4rec, sasrec or caser.")] = "sasrec",
    variant: Annotated[
        str | None, typer.Option(help="modern (default) or paper.", show_default=False)
    ] = None,
    loss: Annotated[str | None, typer.Option(help="bce, ce, bpr, gbce or dros.", show_default=False)] = None,
    rounds: Annotated[int, typer.Option(help="Of both models, after the student's own training.")] = 3,
    adapter: Adapter = None,
    item_text: ItemText = "tfidf",
    rank: Rank = 128,
    cache: Cache = None,
    instruction: Annotated[str, typer.Option(help="Words in front of every history.")] = "",
    seed: Annotated[int, typer.Option(help="Of the run, or of the first of several.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds; each gets a folder seed-N/.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show all settings and stop.")] = False,
) -> None:
    """A student and a language model with a head over items teach each other in turns (LLMD4Rec).

    Keys: lambda_teacher, lambda_student, temperature_teacher, temperature_student (of the divergences), top_m, exact,
    weights=adaptive|none, ranks=live|answers|folds|positions, folds, refresh, keep_answers; teacher.epochs,
    teacher.tune and the other options of recdistill teach item-head; and those of the student, as in recdistill
    distill: train.epochs=50 sasrec.dropout=0.3. A run that was stopped goes on, inside a phase too.
    """
    import yaml

    from recdistill.config.mutual import resolve_mutual
    from recdistill.errors import ConfigError

    said = {"name": student, "variant": variant}
    flags: dict[str, Any] = {
        "dataset": str(dataset.resolve()),
        "student": {key: value for key, value in said.items() if value is not None},
        **({"loss": {"name": loss}} if loss else {}),
    }
    config, options, teacher = resolve_mutual(flags, {"rounds": rounds}, arguments or [])
    if dry_run:
        parts = {"student": config.model_dump(), "mutual": vars(options), "teacher": vars(teacher)}
        print(yaml.safe_dump(parts, sort_keys=False), end="")
        return
    if out is None:
        raise ConfigError("--out is missing. Name the run folder to write: --out r/.")
    from recdistill.data.sequences import SequenceDataset

    data = SequenceDataset.load(dataset)
    for number in range(seeds):
        folder = out if seeds == 1 else out / f"seed-{seed + number}"
        own = config.model_copy(update={"seed": seed + number if seeds > 1 or seed else config.seed})
        text = (item_text, rank, cache or dataset / "text")
        _run((own, options, teacher), data, folder, model, adapter, text, instruction, overwrite)
    print(f"next: recdistill evaluate {out}")
    print(f"each round's student and language model on test: recdistill compare {out} --rounds")


def _run(
    settings: tuple[RunConfig, MutualOptions, ItemHeadOptions],
    data: SequenceDataset,
    folder: Path,
    model: str,
    adapter: Path | None,
    text: tuple[str, int, Path],
    instruction: str,
    overwrite: bool,
) -> None:
    """Carry out one seed. Training changes a language model in place, so each seed loads it anew."""
    from recdistill.cli.mutual_progress import MutualProgress
    from recdistill.cli.run_folder import run_folder
    from recdistill.cli.teach_item_head import item_text_of
    from recdistill.config import describe
    from recdistill.config.mutual import run_mutual
    from recdistill.teachers.language_model.loading import load_language_model
    from recdistill.teachers.language_model.small import trained_on

    config, options, teacher = settings
    lm = load_language_model(model, adapter=adapter)
    vectors, encoder = item_text_of(lm, data, *text)
    if options.ranks in ("folds", "positions") and trained_on(model, data):
        print(
            "the model itself (recdistill lm train) was made from all training histories: its held-out ranks are "
            "better than those of a model that was not"
        )
    with (
        run_folder(folder, config, "mutual", overwrite=overwrite),
        MutualProgress(f"{describe(config)}, {lm.name}, seed {config.seed}") as progress,
    ):
        run_mutual(
            config, options, teacher, lm, folder,
            text=vectors, encoder=encoder, instruction=instruction, dataset=data, listener=progress,
        )  # fmt: skip
