"""``recdistill teach``: ask a teacher about every row and keep its answers in a knowledge folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.teaching import (
    Bars,
    Cache,
    Dataset,
    Encoder,
    FilterSeen,
    Out,
    Overwrite,
    Prefixes,
    Rank,
    SelectRowIds,
    Splits,
    TopK,
    WalkCount,
    WalkSteps,
    Whitening,
    encode_titles,
    finish,
    item_vectors,
    refuse_existing,
    selected_rows,
    split_names,
    walks_of_teacher,
)

app = typer.Typer(
    help="Ask a teacher about every row; its answers become a knowledge folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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
        written = walks_of_teacher(bars, teacher.scorer(data), data, knowledge, walks, walk_steps)
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
        written = walks_of_teacher(bars, teacher.mean_scores, data, knowledge, walks, walk_steps)
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
