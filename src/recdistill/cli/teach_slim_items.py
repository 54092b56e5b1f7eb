"""``recdistill teach slim-items``: the items that SLIM's rationales name, as a ranking."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.teaching import Dataset, FilterSeen, Out, Overwrite, TopK


def slim_items(
    rationales: Annotated[Path, typer.Argument(help="Folder of recdistill rationales slim.")],
    dataset: Dataset,
    out: Out,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or name of a sentence encoder; else the one of the rationales.", show_default=False
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="l2, squared_l2 or cosine.")] = "cosine",
    top_k: TopK = 50,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """The items that the third step of SLIM's rationales names, grounded to the catalogue: a ranking of every row that
    may read a rationale. A run that was stopped goes on where it was.

    A student learns from it with: recdistill distill --strategy rd --knowledge OUT train.coverage=mask
    """
    from recdistill.cli.teaching import Bars, beside_baselines, making_room
    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import load_words
    from recdistill.teachers.grounding.encoders import SentenceEncoder
    from recdistill.teachers.rationales.named_items import ground_names

    data = SequenceDataset.load(dataset)
    words = load_words(rationales, data)
    begun = out.is_dir() and {path.name for path in out.glob("[!.]*")} <= {"vectors"}  # before the first row
    chosen = None if encoder is None else SentenceEncoder(encoder)
    with nullcontext() if begun else making_room(out, overwrite), Bars() as bars:
        bar = bars.add("grounding rows", len(words["row_ids"]) if "row_ids" in words.arrays else 0)
        knowledge, facts = ground_names(
            words, data, out, encoder=chosen, metric=metric, top_k=top_k, progress=bar
        )
    print(facts)
    beside_baselines(knowledge, data, dataset, out, filter_seen)
    print(
        f"next: recdistill distill --dataset {dataset} --strategy rd --knowledge {out} train.coverage=mask --out r/"
    )
