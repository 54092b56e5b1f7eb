"""``recdistill teach blend``: transitions, texts, fields and popularity, weighed on validation rows."""

from __future__ import annotations

from typing import Annotated

import typer

from recdistill.cli.teaching import (
    Cache,
    Dataset,
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
)


def blend(
    dataset: Dataset,
    out: Out,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="tfidf, an encoder's folder or name, or none; may be given several times. The first gives the item "
            "vectors that are kept.  [default: tfidf]",
            show_default=False,
        ),
    ] = None,
    rank: Rank = 128,
    whitening: Whitening = "pca",
    cache: Cache = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="A signal to leave out: step 1, step 2, step 3, sequence, linear, an encoder's (its folder's name), "
            "fields, popularity, or evidence: trust is the same in every row; may be given several times.",
            show_default=False,
        ),
    ] = None,
    last_items: Annotated[int, typer.Option(help="How many of the last items speak.")] = 5,
    decay: Annotated[float, typer.Option(help="Weight of an item relative to the next.")] = 0.6,
    backward: Annotated[float, typer.Option(help="Weight of the reverse direction.")] = 0.35,
    top_k: TopK = 50,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    walks: WalkCount = None,
    walk_steps: WalkSteps = 5,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """Transitions, texts, shared fields and popularity; how far each is trusted is learned on validation rows."""
    from recdistill.cli.teaching import (
        Bars,
        encode_titles,
        finish,
        item_vectors,
        refuse_existing,
        selected_rows,
        split_names,
        walks_of_teacher,
    )
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers import BlendTeacher, SignalOptions, rows_to_teach
    from recdistill.teachers.blend.linear import MOST_ITEMS

    refuse_existing(out, overwrite)
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    options = SignalOptions(last_items=last_items, decay=decay, backward=backward)
    names = [name for name in dict.fromkeys(encoder or ["tfidf"]) if name != "none"]
    texts = [encode_titles(data, name, cache or dataset / "text") for name in names]
    teacher = BlendTeacher(
        {text.encoder: text.vectors for text in texts},
        options,
        without=without or (),
        item_embeddings=item_vectors(texts[0], rank, whitening) if texts else None,
        encoder=names[0] if names else None,
    )
    if data.item_count > MOST_ITEMS:
        print(f"without the signal linear: more than {MOST_ITEMS:,} items")
    with Bars() as bars:
        bar = bars.add("weighing, then answering rows", len(rows))
        scorer = teacher.scorer(data)
        knowledge = teacher.teach(data, rows, top_k=top_k, scorer=scorer, progress=bar)
        written = walks_of_teacher(bars, scorer, data, knowledge, walks, walk_steps)
    told = {
        name: f"{low:.3g} to {low + more:.3g}" if more else f"{low:.3g}"
        for name, (low, more) in teacher.weights.items()
    }
    repeats = "may be named" if scorer.repeats else "come last"
    print(f"weights (little to much evidence): {', '.join(f'{name} {one}' for name, one in told.items())}")
    print(f"temperature {teacher.temperature}; items of the history {repeats}")
    finish(knowledge, data, dataset, out, filter_seen, overwrite, written)
