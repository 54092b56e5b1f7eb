"""``recdistill teach cost``: what a language model would take for all rows, before it is run on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recdistill.cli.teaching import Dataset, Prefixes, SelectRowIds, Splits

if TYPE_CHECKING:
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.backends import HttpGenerator, TextGenerator
    from recdistill.teachers.backends.hf import HfGenerator
    from recdistill.teachers.generation.decoding import DecodeOptions
    from recdistill.teachers.language_model.loading import LanguageModel
    from recdistill.teachers.language_model.prompts import PromptTemplate

Price = Annotated[float | None, typer.Option(help="Of a million tokens.", show_default=False)]


def cost(
    dataset: Dataset,
    model: Annotated[
        str,
        typer.Option(
            help="Folder or name of a language model; its name at the endpoint with --backend http."
        ),
    ],
    backend: Annotated[str, typer.Option(help="hf: in this process; http: an endpoint.")] = "hf",
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="Address of an OpenAI-compatible endpoint, up to /v1; several share the load."),
    ] = None,
    api: Annotated[str, typer.Option(help="Of the endpoint: completions or chat.")] = "completions",
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the endpoint's API key.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests under way at the same time.")] = 16,
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder.", show_default=False)] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda...; else a GPU if there is one.")] = None,
    decode: Annotated[
        str, typer.Option(help="greedy, beam or constrained; greedy with an endpoint.")
    ] = "constrained",
    beams: Annotated[int, typer.Option(help="Beams, and answers a row.")] = 20,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of an answer; else enough for 99.5 % of the titles.", show_default=False),
    ] = None,
    domain: Annotated[str, typer.Option(help="Prompt template: a domain, or a file.")] = "generic",
    last_items: Annotated[int, typer.Option(help="How many of the last items a prompt tells.")] = 10,
    max_tokens: Annotated[int, typer.Option(help="Tokens of prompt and answer at most.")] = 512,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a local model's batch.")] = 16384,
    sample: Annotated[int, typer.Option(help="Rows that are really run, at least.")] = 32,
    prompt_price: Price = None,
    answer_price: Price = None,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
) -> None:
    """Tokens, calls, hours, memory and disk of a language-model teacher, from a timed sample."""
    from recdistill.cli.teaching import selected_rows, split_names
    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import unknown_name
    from recdistill.teachers import rows_to_teach
    from recdistill.teachers.backends import BACKENDS
    from recdistill.teachers.bigrec.stages import answer_length, requests_for
    from recdistill.teachers.cost import estimate_cost
    from recdistill.teachers.generation.decoding import DecodeOptions
    from recdistill.teachers.language_model.loading import load_language_model
    from recdistill.teachers.language_model.prompts import load_template

    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    data, template = SequenceDataset.load(dataset), load_template(domain)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    generator: TextGenerator
    lm = None
    if backend == "http":
        generator = _endpoint(model, base_url, api, api_key_env, concurrency, max_new_tokens or 128)
    else:
        lm = load_language_model(model, adapter=adapter, dtype=dtype, device=device)
        longest = max_new_tokens or answer_length(lm, template, data.catalogue.titles)
        options = DecodeOptions(decode, beams=beams, max_new_tokens=longest)  # type: ignore[arg-type]
        generator = _local(lm, options, batch_tokens, data, template)
    requests = requests_for(
        data,
        rows,
        template,
        last_items=last_items,
        lm=lm,
        max_tokens=max_tokens,
        answer_tokens=getattr(generator, "answer_tokens", 0),
    )
    print(f"running a sample of {len(rows):,} rows on {generator.name} ...", flush=True)
    found = estimate_cost(
        generator, requests, sample=sample, prompt_price=prompt_price, answer_price=answer_price
    )
    for name, value in found.lines():
        print(f"{name:<16} {value}")


def _endpoint(
    model: str, urls: list[str] | None, api: str, key: str, concurrency: int, max_new_tokens: int
) -> HttpGenerator:
    from recdistill.errors import ConfigError
    from recdistill.teachers.backends import HttpGenerator

    if not urls:
        raise ConfigError(
            "--backend http has no address. Needed: where the model is served. Pass --base-url "
            "http://127.0.0.1:8000/v1"
        )
    return HttpGenerator(
        model,
        urls,
        api=api,  # type: ignore[arg-type]
        api_key_env=key,
        concurrency=concurrency,
        max_new_tokens=max_new_tokens,
        stop=["\n"],
    )


def _local(
    lm: LanguageModel,
    options: DecodeOptions,
    batch_tokens: int,
    data: SequenceDataset,
    template: PromptTemplate,
) -> HfGenerator:
    from recdistill.teachers.backends import HfGenerator

    completions = [template.completion(title) if title else "" for title in data.catalogue.titles]
    return HfGenerator(lm, options, completions=completions, batch_tokens=batch_tokens)
