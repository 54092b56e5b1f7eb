"""``recdistill teach``: ask a teacher about every row and keep its answers in a knowledge folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import Knowledge, Walks
    from recdistill.teachers import ItemText
    from recdistill.teachers.base import Scorer
    from recdistill.types import Split

app = typer.Typer(
    help="Ask a teacher about every row; its answers become a knowledge folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

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
        "one from each item of training.",
        min=0,
        show_default=False,
    ),
]
WalkSteps = Annotated[int, typer.Option(help="Steps of a walk; each is a row to learn from.", min=1)]
FilterSeen = Annotated[
    bool,
    typer.Option("--filter-seen/--keep-seen", help="How the final line ranks: without items seen before?"),
]


@app.command()
def graph(
    dataset: Dataset,
    out: Out,
    encoder: Annotated[
        str, typer.Option(help="tfidf, an encoder's folder or name, or none: transitions alone.")
    ] = "tfidf",
    rank: Rank = 128,
    whitening: Whitening = "pca",
    cache: Cache = None,
    tune: Annotated[bool, typer.Option(help="Choose the weights on validation rows.")] = True,
    max_gap: Annotated[int, typer.Option(help="How far apart two events count as a transition.")] = 3,
    backward: Annotated[float, typer.Option(help="Weight of the reverse direction.")] = 0.7,
    last_items: Annotated[int, typer.Option(help="How many of the last items speak.")] = 5,
    decay: Annotated[float, typer.Option(help="Weight of an item relative to the next.")] = 0.6,
    two_hop: Annotated[float, typer.Option(help="Weight of the second step.")] = 0.3,
    two_hop_items: Annotated[int, typer.Option(help="How many of the last items make a second step.")] = 2,
    text_weight: Annotated[float, typer.Option(help="Weight of the text similarity.")] = 0.5,
    repeat_weight: Annotated[
        float, typer.Option(help="What is left of the score of items in the history, 0 to 1.")
    ] = 1.0,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the softmax; else the likeliest on validation.", show_default=False),
    ] = None,
    top_k: TopK = 50,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    walks: WalkCount = None,
    walk_steps: WalkSteps = 5,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """Transitions between items, and text similarity: no training, every row, seconds to minutes."""
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers import GraphOptions, GraphTeacher, rows_to_teach

    refuse_existing(out, overwrite)
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    options = GraphOptions(
        max_gap=max_gap,
        backward=backward,
        last_items=last_items,
        decay=decay,
        two_hop=two_hop,
        two_hop_items=two_hop_items,
        text_weight=text_weight,
        repeat_weight=repeat_weight,
    )
    text = None if encoder == "none" else encode_titles(data, encoder, cache or dataset / "text")
    teacher = GraphTeacher(
        None if text is None else text.vectors,
        options,
        tune=tune,
        temperature=temperature,
        item_embeddings=None if text is None else item_vectors(text, rank, whitening),
        encoder=None if text is None else text.encoder,
    )
    with Bars() as bars:
        # the bar's text tells what happens before the first chunk is done
        bar = bars.add("tuning, then answering rows" if tune else "answering rows", len(rows))
        knowledge = teacher.teach(data, rows, top_k=top_k, progress=bar)
        written = write_walks(bars, teacher.scorer(data), data, knowledge, walks, walk_steps)
    if tune:
        print(f"weights: {teacher.options}, temperature {teacher.temperature}")
    finish(knowledge, data, dataset, out, filter_seen, overwrite, written)


@app.command()
def embedding(
    dataset: Dataset,
    out: Out,
    encoder: Encoder = "tfidf",
    rank: Rank = 128,
    whitening: Annotated[
        str, typer.Option(help="pca, zca, or raw (vectors as the encoder gives them).")
    ] = "pca",
    cache: Cache = None,
    folds: Annotated[int, typer.Option(help="Models; no row is answered by one that trained on it.")] = 3,
    last_items: Annotated[int, typer.Option(help="How many of the last items the query reads.")] = 8,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = 20,
    patience: Annotated[int, typer.Option(help="Passes without a better validation loss.")] = 2,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = 512,
    negatives: Annotated[int, typer.Option(help="Items sampled a step; 0: the whole catalogue.")] = 2048,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of folds, order and samples.")] = 0,
    top_k: TopK = 50,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    walks: WalkCount = None,
    walk_steps: WalkSteps = 5,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """A text-only sequential model over whitened item text; gives query and item embeddings."""
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers import EmbeddingOptions, EmbeddingTeacher, rows_to_teach

    refuse_existing(out, overwrite)
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    options = EmbeddingOptions(
        last_items=last_items,
        folds=folds,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        negatives=negatives,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    text = encode_titles(data, encoder, cache or dataset / "text")
    teacher = EmbeddingTeacher(item_vectors(text, rank, whitening), options, seed=seed, encoder=text.encoder)
    trained = len(data.rows("train", prefixes=True)) * (folds - 1) * epochs
    with Bars() as bars:
        training, answering = bars.add("training (at most)", trained), bars.add("answering rows", len(rows))
        knowledge = teacher.teach(data, rows, top_k=top_k, progress=answering, on_epoch_rows=training)
        written = write_walks(bars, teacher.mean_scores, data, knowledge, walks, walk_steps)
    finish(knowledge, data, dataset, out, filter_seen, overwrite, written)


@app.command()
def precomputed(
    files: Annotated[
        Path, typer.Option(help="Folder of all_embeddings.pt, myrank_train.txt and confidence_train.txt.")
    ],
    dataset: Dataset,
    out: Out,
    metric: Annotated[str, typer.Option(help="How the distances were measured: l2, squared_l2.")] = "l2",
    uid_file: Annotated[
        Path | None, typer.Option(help="File with the row id of each line.", show_default=False)
    ] = None,
    uid_column: Annotated[bool, typer.Option("--uid-column", help="The first column is the row id.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """The three files of the DLLM2Rec authors' layout."""
    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge import save_knowledge
    from recdistill.teachers import precomputed as read

    refuse_existing(out, overwrite)
    data = SequenceDataset.load(dataset)
    knowledge = read(files, data, metric=metric, uid_file=uid_file, uid_column=uid_column)
    save_knowledge(knowledge, out, overwrite=overwrite, dataset=data)
    covered = knowledge.coverage(data.row_ids[data.rows("train")])
    print(f"{len(knowledge):,} rows written to {out}; {covered:.1%} of the training rows are covered")


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Say before the work, not after it, that the folder is in the way."""
    from recdistill.errors import RunError

    if not overwrite and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already exists. Choose another --out, or pass --overwrite to replace it.")


def make_room(out: Path, overwrite: bool) -> None:
    """Delete a knowledge folder that shall be replaced, and nothing else; refuse what is in the way."""
    import shutil

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
    if overwrite:
        shutil.rmtree(out)


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


def write_walks(
    bars: Bars,
    scorer: Scorer,
    data: SequenceDataset,
    knowledge: Knowledge,
    count: int | None,
    steps: int,
) -> Walks | None:
    """Let a teacher that scores any history write sequences; their lists are as long as those of its rows."""
    from recdistill.teachers import default_count, take_walks

    count = default_count(data) if count is None else count
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
