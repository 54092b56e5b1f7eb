"""``recdistill knowledge examples``: some of a teacher's lists, for the page of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def examples(
    folder: Annotated[Path, typer.Argument(help="Knowledge folder with rankings.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows, spread over those that fit.")] = 50,
    length: Annotated[int, typer.Option(min=1, help="Longest history that is taken.")] = 10,
    k: Annotated[int, typer.Option("-k", min=1, help="Items of a list.")] = 20,
) -> None:
    """Write histories with the teacher's lists: recdistill serve REC --examples FILE shows them beside the students."""
    import numpy as np

    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import KnowledgeError
    from recdistill.knowledge import load_knowledge
    from recdistill.runs import write_json

    data = SequenceDataset.load(dataset)
    knowledge = load_knowledge(folder, data)
    if knowledge.ranking is None:
        raise KnowledgeError(
            f"{folder} holds no rankings, but {', '.join(knowledge.fields) or 'nothing'}. Allowed: knowledge of a "
            "teacher that ranks items: recdistill teach graph --dataset D --out K."
        )
    places = data.positions_of(knowledge.row_ids)
    counts = data.history_lengths(places)
    fitting = np.flatnonzero((counts >= 1) & (counts <= length) & (knowledge.ranking[:, 0] >= 0))
    if not len(fitting):
        raise KnowledgeError(
            f"no row of {folder} has a history of 1 to {length} items. Give a larger --length."
        )
    chosen = fitting[np.unique(np.linspace(0, len(fitting) - 1, rows).astype(np.int64))]
    histories = data.histories(places[chosen], length)
    targets = data.targets(places[chosen])
    raw = data.catalogue.raw_ids
    found = [
        {
            "history": [raw[item] for item in history if item >= 0],
            "target": raw[target],
            "teacher": [raw[item] for item in knowledge.ranking[row, :k] if item >= 0],
        }
        for row, history, target in zip(chosen, histories, targets, strict=True)
    ]
    teacher = str(knowledge.manifest.get("teacher", ""))
    write_json(out, {"dataset_fingerprint": data.fingerprint, "teacher": teacher, "rows": found})
    print(f"{len(found)} rows written to {out}")
    print(f"next: recdistill serve REC --examples {out}")
