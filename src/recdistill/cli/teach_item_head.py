"""``recdistill teach item-head``: a language model with a head over items answers every row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recdistill.cli.teaching import (
    Bars,
    Cache,
    Dataset,
    FilterSeen,
    Overwrite,
    Prefixes,
    Rank,
    SelectRowIds,
    Splits,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.language_model.loading import LanguageModel

Model = Annotated[str, typer.Option(help="Folder or hub name of a causal language model.")]
ItemText = Annotated[
    str,
    typer.Option(
        help="tfidf, lm (the model's own mean over a title), an encoder's folder or name, or none (ids alone)."
    ),
]
Adapter = Annotated[Path | None, typer.Option(help="Adapter folder to start from.", show_default=False)]


def item_head(
    dataset: Dataset,
    model: Model,
    out: Annotated[Path, typer.Option(help="Knowledge folder to write, or to go on with.")],
    adapter: Adapter = None,
    item_text: ItemText = "tfidf",
    rank: Rank = 128,
    cache: Cache = None,
    history: Annotated[
        str, typer.Option(help="What stands for an item: items (one soft token), titles (its words), both.")
    ] = "items",
    instruction: Annotated[str, typer.Option(help="Words in front of every history.")] = "",
    max_items: Annotated[int, typer.Option(help="Items of a history in one pass.")] = 50,
    max_title_tokens: Annotated[int, typer.Option(help="Tokens kept of a title.")] = 24,
    tune: Annotated[
        str, typer.Option(help="full, lora, frozen, or auto: full up to 50 million parameters, else lora.")
    ] = "auto",
    lora_rank: Annotated[int, typer.Option(help="Rank of the LoRA matrices.")] = 16,
    lora_alpha: Annotated[int, typer.Option(help="Scale of LoRA; divided by the rank.")] = 32,
    lora_dropout: Annotated[float, typer.Option(help="Dropout before the LoRA matrices.")] = 0.05,
    lora_targets: Annotated[
        str, typer.Option(help="Module names with commas between, or all-linear.")
    ] = "all-linear",
    id_size: Annotated[int, typer.Option(help="Width of the free input vectors.")] = 64,
    head_size: Annotated[int, typer.Option(help="Width of the head's space.")] = 64,
    dropout: Annotated[float, typer.Option(help="On soft tokens and queries.")] = 0.2,
    id_dropout: Annotated[float, typer.Option(help="How often a free vector is left out in training.")] = 0.3,
    negatives: Annotated[
        int, typer.Option(help="Items sampled a step; 0: all that are answers in training.")
    ] = 0,
    folds: Annotated[
        int,
        typer.Option(
            help="No training row is answered by a model that saw its sequence; 1: one model answers all."
        ),
    ] = 3,
    epochs: Annotated[int, typer.Option(help="At most so many passes.")] = 10,
    patience: Annotated[int, typer.Option(help="Passes without a better validation NDCG@20.")] = 2,
    batch_tokens: Annotated[
        int, typer.Option(help="Tokens a step; 0: for 64 steps an epoch, 256 to 2048.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of the new parts.")] = 2e-3,
    lm_learning_rate: Annotated[float, typer.Option(help="Of the language model's own parameters.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    gradient_clip: Annotated[float, typer.Option(help="Largest gradient norm; 0: any.")] = 1.0,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the rate rises.")] = 0.05,
    precision: Annotated[str, typer.Option(help="float32, or bf16 for products.")] = "float32",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of start weights, folds, order and dropout.")] = 0,
    top_k: Annotated[int, typer.Option(help="Items kept of each row, with their log-probabilities.")] = 200,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """A language model that reads items as soft tokens and scores the whole catalogue in one pass. A run that was
    stopped goes on where it was."""
    from recdistill.cli.teaching import beside_baselines, making_room, selected_rows, split_names
    from recdistill.data.sequences import SequenceDataset
    from recdistill.knowledge.store import add_to_manifest
    from recdistill.teachers import rows_to_teach
    from recdistill.teachers.item_head.options import ItemHeadOptions
    from recdistill.teachers.item_head.space import listed_mass
    from recdistill.teachers.item_head.teacher import ItemHeadTeacher
    from recdistill.teachers.language_model.loading import load_language_model
    from recdistill.teachers.language_model.small import trained_on

    options = ItemHeadOptions(
        history=history,  # type: ignore[arg-type]  # the class checks it
        max_items=max_items,
        max_title_tokens=max_title_tokens,
        tune=tune,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_targets=lora_targets,
        id_size=id_size,
        head_size=head_size,
        dropout=dropout,
        id_dropout=id_dropout,
        negatives=negatives,
        folds=folds,
        epochs=epochs,
        patience=patience,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        lm_learning_rate=lm_learning_rate,
        weight_decay=weight_decay,
        gradient_clip=gradient_clip,
        warmup=warmup,
        precision=precision,  # type: ignore[arg-type]
        gradient_checkpointing=gradient_checkpointing,
    )
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    with making_room(out, overwrite):
        lm = load_language_model(model, adapter=adapter)
        text, encoder = item_text_of(lm, data, item_text, rank, cache or dataset / "text")
        teacher = ItemHeadTeacher(lm, text, options, seed=seed, encoder=encoder, instruction=instruction)
        print(
            f"{lm.name}: {teacher.options.tune} tuning, histories as {history}, {len(teacher.shares(data))} models"
        )
        with Bars() as bars:
            hear, answering = bars.training(), bars.add("answering rows", len(rows))
            knowledge = teacher.teach(data, rows, out=out, top_k=top_k, progress=answering, on_step=hear)
    for name, best in knowledge.manifest["models"].items():
        found = f"valid HR@20 {best['hr@20']:.4f}  NDCG@20 {best['ndcg@20']:.4f}"
        print(f"  {name:<8} best epoch {best['epoch']:>2}  loss {best['loss']:.4f}  {found}")
    cold = knowledge.manifest["items_without_training_events"]
    scored = "scored by their text" if text is not None else "scored alike: --item-text none"
    print(f"{cold:,} of {data.item_count:,} items are no answer in training; they are {scored}")
    print(f"the kept lists hold {listed_mass(knowledge).mean():.1%} of the probability on average")
    if trained_on(model, data):
        add_to_manifest(out, {"model_read_training_histories": True})
        print(
            "the model itself (recdistill lm train) was made from all training histories: folds do not undo that"
        )
    beside_baselines(knowledge, data, dataset, out, filter_seen)


def item_text_of(
    lm: LanguageModel, data: SequenceDataset, kind: str, rank: int, cache: Path
) -> tuple[npt.NDArray[np.float32] | None, str | None]:
    """Return the whitened item text vectors and the encoder's name, or None and None."""
    from recdistill.cli.teaching import encode_titles, item_vectors
    from recdistill.teachers.item_head.text import lm_text

    if kind == "none":
        return None, None
    text = lm_text(lm, data.catalogue.titles) if kind == "lm" else encode_titles(data, kind, cache)
    return item_vectors(text, rank, "pca"), text.encoder
