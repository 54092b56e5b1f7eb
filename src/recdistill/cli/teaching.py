"""What the ``recdistill teach`` commands share: options, progress, and what is done when a teacher has answered."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import Knowledge, Walks
    from recdistill.teachers import ItemText
    from recdistill.teachers.base import Scorer
    from recdistill.types import Split

Dataset = Annotated[Path, typer.Option(help="Dataset folder, from recdistill data.")]
Out = Annotated[Path, typer.Option(help="Knowledge folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a knowledge folder that is there.")]
Encoder = Annotated[
    str,
    typer.Option(
        help="tfidf (offline), or the folder or name of a sentence-transformers or Hugging Face encoder."
    ),
]
Rank = Annotated[int, typer.Option(help="Width of the whitened item vectors; 0: all directions.")]
Whitening = Annotated[str, typer.Option(help="Kept item vectors: pca or zca (whitened), or raw.")]
Cache = Annotated[
    Path | None,
    typer.Option(help="Keep encoded titles here; else under the dataset folder.", show_default=False),
]
TopK = Annotated[int, typer.Option(help="Items kept of each row's ranking.")]
Splits = Annotated[str, typer.Option(help="Splits to answer, with commas between.")]
Prefixes = Annotated[
    bool, typer.Option(help="Also the early positions that students supervised everywhere learn from.")
]
SelectRowIds = Annotated[
    Path | None,
    typer.Option(
        help="Ask about these training rows alone: .parquet or .json of recdistill knowledge select.",
        show_default=False,
    ),
]
WalkCount = Annotated[
    int | None,
    typer.Option(
        "--walks",
        help="Sequences that the teacher writes for students with train.walks (the preset best has it); 0: none; else "
        "one from each item of training, as far as there are no more steps than training rows.",
        min=0,
        show_default=False,
    ),
]
WalkSteps = Annotated[int, typer.Option(help="Steps of a walk; each is a row to learn from.", min=1)]
FilterSeen = Annotated[
    bool,
    typer.Option("--filter-seen/--keep-seen", help="How the final line ranks: without items seen before?"),
]


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Say before the work, not after it, that the folder is in the way."""
    from recdistill.errors import RunError

    if not overwrite and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already exists. Choose another --out, or pass --overwrite to replace it.")


@contextmanager
def making_room(out: Path, overwrite: bool) -> Iterator[None]:
    """Set a knowledge folder that shall be replaced aside while its successor is begun; refuse what is in the way."""
    from recdistill.runs import replaced

    _refuse_foreign(out)
    with replaced(out, overwrite):
        yield


def _refuse_foreign(out: Path) -> None:
    from recdistill.errors import RunError
    from recdistill.runs import MANIFEST, read_manifest

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    begun = (out / "shards" / MANIFEST).is_file()
    if not begun and not (out / MANIFEST).is_file():
        raise RunError(
            f"{out} is in the way: recdistill teach did not write it (no {MANIFEST}). Allowed: a new folder, or one "
            "that this command began. Choose another --out."
        )
    read_manifest(out / "shards" if begun else out, "shards" if begun else "knowledge")


def selected_rows(path: Path | None) -> npt.NDArray[np.int64] | None:
    """Return the row ids of a file, or None for all."""
    from recdistill.knowledge import read_row_ids

    return None if path is None else read_row_ids(path)


def split_names(names: str) -> list[Split]:
    """Read the names of splits with commas between them, in the order train, valid, test."""
    from recdistill.errors import unknown_name
    from recdistill.types import SPLITS

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
    return [split for split in SPLITS if split in wanted]


def encode_titles(data: SequenceDataset, encoder: str, cache: Path) -> ItemText:
    """Encode the titles and say how many there are."""
    from recdistill.teachers import encode_text

    text = encode_text(data.catalogue.titles, encoder, cache=cache)
    items, width = text.vectors.shape
    print(f"item text: {items:,} items, {text.missing:,} without a title, {width} dimensions ({encoder})")
    return text


def item_vectors(text: ItemText, rank: int, whitening: str) -> npt.NDArray[np.float32]:
    """Return the item vectors that are kept: whitened to `rank` directions (0: all), or raw."""
    from recdistill.errors import unknown_name

    if whitening == "raw":
        return text.vectors
    if whitening not in ("pca", "zca"):
        raise unknown_name("whitening", whitening, ("pca", "zca", "raw"))
    width = min(rank, text.vectors.shape[1]) or None
    return text.whitened(width, kind="zca" if whitening == "zca" else "pca")


class Bars:
    """Progress bars with the time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, transient=True)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def add(self, text: str, total: int) -> Callable[[int], None]:
        """Return what moves a new bar on."""
        task = self.progress.add_task(text, total=total)
        return lambda done: self.progress.advance(task, done)

    def training(self) -> Callable[[str, int | str, int, int, float], None]:
        """Return what draws one bar for each of several models; it hears the epoch, from 0, or what the stage is."""
        from rich.progress import TaskID

        tasks: dict[str, TaskID] = {}

        def hear(name: str, stage: int | str, done: int, total: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = self.progress.add_task("", total=total)
            stage = f"epoch {stage + 1}" if isinstance(stage, int) else stage
            told = f"{name}: {stage}, loss {loss:.3f}"
            self.progress.update(tasks[name], completed=done, total=total, description=told)

        return hear


def walks_of_teacher(
    bars: Bars,
    scorer: Scorer,
    data: SequenceDataset,
    knowledge: Knowledge,
    count: int | None,
    steps: int,
) -> Walks | None:
    """Let a teacher that scores any history write sequences; their lists are as long as those of its rows."""
    from recdistill.teachers import default_count, take_walks

    count = default_count(data, steps) if count is None else count
    if not count:
        return None
    return take_walks(
        scorer,
        data,
        count=count,
        steps=steps,
        temperature=knowledge.manifest["temperature"],
        top_k=knowledge.manifest["top_k"],
        progress=bars.add("walks", count * steps),
    )


def finish(
    knowledge: Knowledge,
    data: SequenceDataset,
    dataset: Path,
    out: Path,
    filter_seen: bool,
    overwrite: bool,
    walks: Walks | None = None,
) -> None:
    """Save, then set the teacher beside the free baselines on the validation rows."""
    from recdistill.knowledge import save_knowledge

    save_knowledge(knowledge, out, overwrite=overwrite, dataset=data, walks=walks)
    if walks is not None:
        print(f"{len(walks):,} walks of {walks.steps} steps, for students with train.walks=true")
    beside_baselines(knowledge, data, dataset, out, filter_seen)


def beside_baselines(
    knowledge: Knowledge, data: SequenceDataset, dataset: Path, out: Path, filter_seen: bool
) -> None:
    """Say what was written to `out`, and set it beside the free baselines on the validation rows.

    The test rows are left for `recdistill compare`: settings that are tried one after the other are not picked there.
    """
    from recdistill.knowledge import teacher_evaluation
    from recdistill.teachers import evaluate_baselines

    print(f"{len(knowledge):,} rows, top {knowledge.manifest['top_k']} each, written to {out}")
    teacher = teacher_evaluation(knowledge, data, "valid", filter_seen)
    if teacher is None:
        return
    free = evaluate_baselines(data, "valid", filter_seen=filter_seen, cache=dataset / "baselines")
    lines = {f"{teacher.name} (this teacher)": teacher, **free}
    print(f"\n{teacher.protocol:<56} {'HR@20':>8} {'NDCG@20':>8}")
    for name, evaluation in lines.items():
        metrics = evaluation.metrics((20,))
        print(f"  {name:<54} {metrics['hr@20']:8.4f} {metrics['ndcg@20']:8.4f}")
    print(f"\nOn the test rows, once everything is chosen: recdistill compare {out} --dataset {dataset}")
