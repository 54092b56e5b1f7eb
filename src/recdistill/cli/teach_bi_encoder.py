"""``recdistill teach bi-encoder``: a pretrained text encoder, tuned as a recommender, answers every row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recdistill.cli.teaching import Bars, Dataset, FilterSeen, Overwrite, Prefixes, SelectRowIds, Splits, TopK

if TYPE_CHECKING:
    from recdistill.knowledge import Knowledge

Model = Annotated[
    str, typer.Option(help="Folder or hub name of a sentence-transformers or Hugging Face encoder.")
]


def bi_encoder(
    dataset: Dataset,
    model: Model,
    out: Annotated[Path, typer.Option(help="Knowledge folder to write, or to go on with.")],
    query: Annotated[
        str,
        typer.Option(help="pooled (attention over title vectors: fast), or text (the titles as one text)."),
    ] = "pooled",
    last_items: Annotated[int, typer.Option(help="How many of the last items a query reads.")] = 10,
    size: Annotated[int, typer.Option(help="Width of queries and items, at most the encoder's.")] = 256,
    max_tokens: Annotated[int, typer.Option(help="Tokens kept of a text.")] = 64,
    temperature: Annotated[float, typer.Option(help="At the start; it is trained.")] = 0.08,
    tune: Annotated[
        str, typer.Option(help="layers (the encoder's last ones), lora, full, or none: the head alone.")
    ] = "layers",
    layers: Annotated[int, typer.Option(help="How many of the last layers.")] = 2,
    lora_rank: Annotated[int, typer.Option(help="Rank of the LoRA matrices.")] = 16,
    negatives: Annotated[
        str,
        typer.Option(help="catalogue (all items compete), or batch (the other answers, less popularity)."),
    ] = "catalogue",
    sample: Annotated[
        int, typer.Option(help="Items that compete in a step of catalogue; 0: all that are answers.")
    ] = 2048,
    titles_per_step: Annotated[int, typer.Option(help="Titles encoded with gradients in a step.")] = 128,
    rows_per_step: Annotated[
        int, typer.Option(help="Rows of such a step; 0: 2048 for pooled queries, 64 for text.")
    ] = 0,
    head_epochs: Annotated[int, typer.Option(help="Passes over the rows before the encoder moves.")] = 1,
    epochs: Annotated[int, typer.Option(help="At most so many passes with the encoder.")] = 3,
    patience: Annotated[int, typer.Option(help="Refreshes without a better validation NDCG@20.")] = 1,
    refreshes: Annotated[
        int, typer.Option(help="Times in a pass that all item vectors are computed anew and judged.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of the head.")] = 3e-4,
    tower_learning_rate: Annotated[float, typer.Option(help="Of the encoder.")] = 5e-5,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    folds: Annotated[
        int, typer.Option(help="Models; no row is answered by one that saw its sequence. 1: --train-share.")
    ] = 2,
    train_share: Annotated[
        float, typer.Option(help="With one fold, share of the sequences it is trained on.")
    ] = 0.5,
    answer_trained: Annotated[
        bool, typer.Option("--answer-trained", help="With one fold, answer the rows it was trained on too.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="Of the encoder: float32, bf16, or auto (bf16 where the machine has it).")
    ] = "auto",
    batch_tokens: Annotated[int, typer.Option(help="Padded tokens that the encoder reads at a time.")] = 2048,
    seed: Annotated[int, typer.Option(help="Of folds, order and samples.")] = 0,
    top_k: TopK = 50,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """A sentence encoder fine-tuned to find the next title. A run that was stopped goes on where it was."""
    from recdistill.cli.teaching import beside_baselines, making_room, selected_rows, split_names
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers import rows_to_teach
    from recdistill.teachers.bi_encoder.options import BiEncoderOptions
    from recdistill.teachers.bi_encoder.teacher import BiEncoderTeacher
    from recdistill.teachers.text.tower_loading import load_text_tower

    options = BiEncoderOptions(
        query=query,
        last_items=last_items,
        size=size,
        temperature=temperature,
        tune=tune,
        layers=layers,
        lora_rank=lora_rank,
        negatives=negatives,
        sample=sample,
        titles_per_step=titles_per_step,
        rows_per_step=rows_per_step,
        head_epochs=head_epochs,
        epochs=epochs,
        patience=patience,
        refreshes=refreshes,
        learning_rate=learning_rate,
        tower_learning_rate=tower_learning_rate,
        weight_decay=weight_decay,
        folds=folds,
        train_share=train_share,
        answer_trained=answer_trained,
    )
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    with making_room(out, overwrite):
        tower = load_text_tower(model, max_tokens=max_tokens, precision=precision, batch_tokens=batch_tokens)
        teacher = BiEncoderTeacher(tower, options, seed=seed)
        trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in tower.parameters())
        print(
            f"{tower.name}: {trained:,} of {whole:,} parameters trained ({tune}), {folds} model(s)",
            flush=True,
        )
        with Bars() as bars:
            hear, answering = bars.training(), bars.add("answering rows", len(rows))
            knowledge = teacher.teach(data, rows, out=out, top_k=top_k, progress=answering, on_step=hear)
    _say(knowledge, len(rows))
    beside_baselines(knowledge, data, dataset, out, filter_seen)


def _say(knowledge: Knowledge, asked: int) -> None:
    """Print what each model reached, untrained and at its best, and what shuffling costs."""
    for name, result in knowledge.manifest["models"].items():
        if not isinstance(result, dict):
            continue
        first, best = result["history"][0], result["best"]
        print(
            f"  {name:<8} valid NDCG@20 {best['ndcg@20']:.4f}  HR@20 {best['hr@20']:.4f} after round "
            f"{best['round']!r} (untrained {first['ndcg@20']:.4f}  {first['hr@20']:.4f})"
        )
    if len(knowledge) < asked:
        print(f"{asked - len(knowledge):,} rows are left out: the model was trained on them")
    order = knowledge.manifest["order_sensitivity"]
    if order and order["drop"] is not None:
        print(f"shuffled histories cost {order['drop']:.1%} of NDCG@20 ({order['rows']:,} validation rows)")
