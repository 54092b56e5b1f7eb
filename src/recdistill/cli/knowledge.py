"""``recdistill knowledge``: look at what a teacher left behind, judge it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from recdistill.data import SequenceDataset
    from recdistill.evaluate import Evaluation
    from recdistill.knowledge.official import Scaling
    from recdistill.types import Split

app = typer.Typer(
    help="What a teacher left behind: show it, audit it, export it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Knowledge folder.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder, for the coverage of its splits.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option(help="Look at every value.")] = True,
) -> None:
    """Print fields, shapes, coverage and manifest."""
    import json

    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import WALKS, has_walks, load_knowledge, load_walks
    from recdistill.runs import read_manifest
    from recdistill.types import SPLITS

    data = None if dataset is None else SequenceDataset.load(dataset)
    knowledge = load_knowledge(folder, data, check=check)
    print(f"{len(knowledge):,} rows, {knowledge.item_count:,} items")
    for name, array in knowledge.fields.items():
        print(f"  {name:<20} {array.dtype!s:<8} {' x '.join(f'{n:,}' for n in array.shape)}")
    if has_walks(folder):
        facts = read_manifest(folder / WALKS, WALKS)
        print(f"  {facts['walks']:,} walks of {facts['steps']} steps, for students with train.walks=true")
        if data is not None:
            load_walks(folder, data)
    if data is not None:
        for split in SPLITS:
            rows = data.row_ids[data.rows(split)]
            print(f"  {split:<6} {knowledge.coverage(rows):7.2%} of {len(rows):,} rows covered")
    hidden = {"fields", "rows", "item_count"}
    facts = {name: value for name, value in knowledge.manifest.items() if name not in hidden}
    print(json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Knowledge folder.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the three files.")],
    k: Annotated[
        int | None, typer.Option(help="Items a line; all by default.", min=1, show_default=False)
    ] = None,
    min_max: Annotated[
        str, typer.Option(help="Scale distances to 0..1 over each 'row', over 'all', or 'none'.")
    ] = "none",
    overwrite: Annotated[bool, typer.Option(help="Replace files of an earlier export.")] = False,
) -> None:
    """Write the three files of the authors' layout: all_embeddings.pt, myrank_train.txt,
    confidence_train.txt."""
    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import unknown_name
    from recdistill.knowledge import export_official, load_knowledge

    scalings: dict[str, Scaling] = {"none": "none", "row": "row", "all": "all"}
    if min_max not in scalings:
        raise unknown_name("scaling", min_max, scalings)
    data = SequenceDataset.load(dataset)
    export_official(
        load_knowledge(folder, data), out, data, k=k, scaling=scalings[min_max], overwrite=overwrite
    )
    print(f"written: {out}")


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="Knowledge folder.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder.")],
    run: Annotated[
        Path | None, typer.Option(help="Run folder of a student to compare with.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    filter_seen: Annotated[
        bool | None,
        typer.Option(
            "--filter-seen/--keep-seen",
            help="Rank without the items of the history; else as is usual for the split.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Length of the lists that are compared.", min=1)] = 20,
    baselines: Annotated[bool, typer.Option(help="Compare with the free baselines.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Write audit.md and audit.json into this folder.", show_default=False)
    ] = None,
) -> None:
    """Tables 2 and 3 and what they leave out: is this teacher worth distilling, and where?"""
    from rich.console import Console
    from rich.markdown import Markdown

    from recdistill.cli.results import protocol
    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import audit_knowledge, load_knowledge, render_audit, require_unlearned
    from recdistill.runs import atomic_file, write_json
    from recdistill.teachers import evaluate_baselines

    data = SequenceDataset.load(dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    knowledge = load_knowledge(folder, data)
    require_unlearned(knowledge, chosen, folder)
    other, top = (None, None) if run is None else _judge_run(run, data, chosen, filtered, k)
    free = (
        evaluate_baselines(
            data, chosen, filter_seen=filtered, learned=knowledge.learned, cache=dataset / "baselines"
        )
        if baselines
        else None
    )
    popular, student = _judge_valid(run, data, dataset, filtered, k, baselines)
    found = audit_knowledge(
        knowledge,
        data,
        split=chosen,
        filter_seen=filtered,
        other=other,
        other_top=top,
        baselines=free,
        k=k,
        valid_popularity=popular,
        valid_student=student,
    )
    text = render_audit(found)
    Console().print(Markdown(text))
    if out is not None:
        with atomic_file(out / "audit.md") as path:
            path.write_text(text, encoding="utf-8")
        write_json(out / "audit.json", found.to_json())
        print(f"written: {out}")


def _judge_valid(
    run: Path | None, data: SequenceDataset, dataset: Path, filter_seen: bool, k: int, baselines: bool
) -> tuple[Evaluation | None, Evaluation | None]:
    """Return what the quality gates compare with on validation rows: popularity and the run, each if wanted."""
    from recdistill.teachers import evaluate_baselines

    if not len(data.rows("valid")):
        return None, None
    cache = dataset / "baselines"
    free = evaluate_baselines(data, "valid", filter_seen=filter_seen, cache=cache) if baselines else {}
    student = None if run is None else _judge_run(run, data, "valid", filter_seen, k)[0]
    return free.get("popularity"), student


def _judge_run(
    run: Path, dataset: SequenceDataset, split: Split, filter_seen: bool, k: int
) -> tuple[Evaluation, npt.NDArray[np.int64]]:
    from recdistill.evaluate import Evaluation, target_ranks, top_items
    from recdistill.export import load_scorer

    scorer, length = load_scorer(run)
    rows = dataset.rows(split)
    ranks = target_ranks(scorer, dataset, rows, length=length)
    top = top_items(scorer, dataset, rows, k, length=length, filter_seen=filter_seen)
    chosen = ranks.unseen if filter_seen else ranks.kept
    ids = dataset.row_ids[rows]
    return Evaluation(run.name, split, ids, chosen, dataset.item_count, filter_seen), top
