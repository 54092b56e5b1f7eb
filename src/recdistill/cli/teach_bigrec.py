"""``recdistill teach bigrec``: a language model writes the next title, and the writing is grounded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.teaching import Dataset, FilterSeen, Overwrite, Prefixes, SelectRowIds, Splits, TopK


def bigrec(
    dataset: Dataset,
    model: Annotated[
        str, typer.Option(help="Folder or hub name of a causal language model; with http, its name there.")
    ],
    out: Annotated[Path, typer.Option(help="Knowledge folder to write, or to go on with.")],
    stage: Annotated[str, typer.Option(help="finetune, generate, ground, or all.")] = "all",
    preset: Annotated[str, typer.Option(help="modern, or official: the settings of the authors.")] = "modern",
    domain: Annotated[
        str, typer.Option(help="Prompt: films, games, toys, books, generic, or a file.")
    ] = "generic",
    last_items: Annotated[int, typer.Option(help="How many of the last items a prompt tells.")] = 10,
    max_tokens: Annotated[int, typer.Option(help="Tokens of prompt and answer.")] = 512,
    tune: Annotated[
        str,
        typer.Option(help="Fine-tuning: lora, full, none, or auto (full for small models, lora for others)."),
    ] = "auto",
    samples: Annotated[
        str | None,
        typer.Option(help="Training rows to tune on, or all; else the preset's.", show_default=False),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="1: one model; K: no training row is answered by one that was tuned on it.")
    ] = 1,
    tuning: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE of the fine-tuning, such as epochs=3 or learning_rate=1e-4; may be repeated.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="hf: in this process; http: an endpoint.")] = "hf",
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="Address of an OpenAI-compatible endpoint, up to /v1; several share the load."),
    ] = None,
    api: Annotated[str, typer.Option(help="Of the endpoint: completions or chat.")] = "completions",
    api_key_env: Annotated[str, typer.Option(help="Variable with the endpoint's key.")] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests under way at the same time.")] = 16,
    decode: Annotated[
        str | None,
        typer.Option(help="greedy, beam, or constrained to titles; else the preset's.", show_default=False),
    ] = None,
    beams: Annotated[
        int | None, typer.Option(help="Beams, and answers a row; else the preset's.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of an answer; else enough for 99.5 % of the titles.", show_default=False),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose probabilities are mixed into constrained beams.", show_default=False
        ),
    ] = None,
    lm_weight: Annotated[float, typer.Option(help="The language model's weight beside the student's.")] = 0.5,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a local model's batch.")] = 16384,
    ground_encoder: Annotated[
        str | None,
        typer.Option(
            help="tuned or base (last token), mean (of the tuned model's), or a sentence encoder's folder or name.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="l2, squared_l2 or cosine.")] = "l2",
    whiten: Annotated[
        int | None,
        typer.Option(help="Directions of whitened vectors; 0: all; -1: no whitening.", show_default=False),
    ] = None,
    beam_rule: Annotated[
        str | None,
        typer.Option(
            help="first: the best answer is grounded; beams_first: the items of all beams lead the ranking "
            "(the rule for constrained).",
            show_default=False,
        ),
    ] = None,
    inject: Annotated[
        str, typer.Option(help="Correct distances by: none, popularity, or a run folder's scores.")
    ] = "none",
    gamma: Annotated[
        float | None, typer.Option(help="Of the injection; else the best on validation.", show_default=False)
    ] = None,
    zero_guard: Annotated[
        float, typer.Option(help="Added to scaled distances, so that first items can change.")
    ] = 0.0,
    rows: Annotated[
        int | None,
        typer.Option(help="At most so many rows of each split, evenly spread.", show_default=False),
    ] = None,
    order_rows: Annotated[
        int, typer.Option(help="Validation rows that are asked with shuffled histories too; 0: none.")
    ] = 200,
    select_row_ids: SelectRowIds = None,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    top_k: TopK = 50,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda...; else a GPU if there is one.", show_default=False)
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="8bit or 4bit.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of folds, samples and tuning.")] = 0,
    engine: Annotated[
        str, typer.Option(help="local, or ray: workers of a cluster generate and ground.")
    ] = "local",
    workers: Annotated[int, typer.Option(help="Workers of --engine ray.")] = 2,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a language model, let it write the next title for every row, and ground the titles to the catalogue.
    A run that was stopped goes on where it was."""
    from recdistill.cli.bigrec_options import BigRecOptions
    from recdistill.cli.bigrec_run import BigRecRun
    from recdistill.cli.teaching import beside_baselines
    from recdistill.data.sequences import SequenceDataset
    from recdistill.runs import replaced
    from recdistill.teachers.bigrec.stages import require_own

    options = BigRecOptions(
        **{name: value for name, value in locals().items() if name in BigRecOptions.names()}
    )
    stages = options.resolved()
    data = SequenceDataset.load(dataset)
    run = BigRecRun(data, options)
    require_own(out)
    with replaced(out, overwrite):
        for name in stages:
            getattr(run, name)()
    if "ground" in stages:
        beside_baselines(run.knowledge, data, dataset, out, filter_seen)
        print(run.closing)
