"""``recdistill teach again``: a teacher that has counted the rows that picked its settings, too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from recdistill.cli.teaching import Cache, Dataset, Out, Overwrite


def again(
    knowledge: Annotated[
        Path, typer.Argument(help="Knowledge folder of recdistill teach graph or teach blend.")
    ],
    dataset: Dataset,
    out: Out,
    rows: Annotated[
        Literal["valid", "all"],
        typer.Option(
            help="valid: count the validation rows, too. all: those of the test as well, to be deployed."
        ),
    ] = "valid",
    cache: Cache = None,
    overwrite: Overwrite = False,
) -> None:
    """A teacher of transitions once more, now that its weights are picked: it counts further rows as well.

    Weights, temperature, walks and the rows that are answered stay as they are. A student is trained on the same
    rows by recdistill refit, with --knowledge.
    """
    from recdistill.cli.teaching import Bars, refuse_existing
    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import ConfigError
    from recdistill.knowledge import load_knowledge, save_knowledge
    from recdistill.teachers.again import teach_again
    from recdistill.types import HELD_OUT

    refuse_existing(out, overwrite)
    data = SequenceDataset.load(dataset)
    if learned := load_knowledge(knowledge, data).learned:
        raise ConfigError(
            f"the teacher of {knowledge} has counted the {' and '.join(learned)} rows already. Allowed: the knowledge "
            "that validation was asked about, of recdistill teach graph or teach blend."
        )
    view = data.learning_from(*(HELD_OUT if rows == "all" else HELD_OUT[:1]))
    with Bars() as bars:
        answers, walks = teach_again(knowledge, view, cache=cache or dataset / "text", bar=bars.add)
    save_knowledge(answers, out, overwrite=overwrite, dataset=view, walks=walks)
    told = f" and {len(walks):,} walks" if walks is not None else ""
    print(f"{len(answers):,} rows{told}, of a teacher that counts the {rows} rows too, written to {out}")
    print(f"next: recdistill refit r/ --rows {rows} --knowledge {out} --out f/")
