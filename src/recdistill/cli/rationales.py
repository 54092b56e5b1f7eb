"""``recdistill rationales``: let a language model write about users and items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recdistill.cli.teaching import Bars
    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.backends import TextGenerator
    from recdistill.teachers.language_model.loading import LanguageModel
    from recdistill.teachers.rationales import Maker, Work
    from recdistill.teachers.rationales.asking import Sampling

Price = Annotated[float | None, typer.Option(help="Of a million tokens.", show_default=False)]


def rationales(
    name: Annotated[str, typer.Argument(help="Which system writes: kar, llm-cf or slim.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder, from recdistill data.")],
    model: Annotated[
        str,
        typer.Option(
            help="Folder or name of the large language model; its name at the endpoint with --backend http; with "
            "scripted a file of answers, or a folder with one for each kind."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; a run that was stopped goes on there.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", show_default=False)
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="hf (in this process), http (OpenAI-compatible), or scripted: answers from a file."
        ),
    ] = "hf",
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter of recdistill's fine-tuning.", show_default=False)
    ] = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="Where --backend http asks; may repeat.", show_default=False)
    ] = None,
    api: Annotated[str, typer.Option(help="chat or completions, for --backend http.")] = "chat",
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the endpoint's key.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option(help="Requests under way at a time.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 300,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a local model's batch.")] = 16384,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda ...; else the first GPU.", show_default=False)
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="Of all texts: tfidf (offline), or an encoder's folder or name."),
    ] = "tfidf",
    prompt_price: Price = None,
    answer_price: Price = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Run a small sample, tell what all will take, and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show a prompt of each kind and what is to be asked, and stop.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away the folder, its answers too.")
    ] = False,
) -> None:
    """Let a language model write about users and items: recdistill rationales kar --dataset d/ --model m/ --out t/.

    Options of a system are KEY=VALUE: domain=toys, cuts=[0.5,1], most=15, each_row=[valid,test]; kar: items=false,
    factors=[genre,mood] or factors=ask; slim: small=lm/, teacher_texts=1000, tuning.epochs=3; llm-cf: share=0.1,
    answers=3, temperature=0.6, columns=[title,brand]. Then: recdistill distill --strategy kar --knowledge t/.
    """
    from functools import partial

    from recdistill.cli.teaching import Bars
    from recdistill.data.sequences import SequenceDataset
    from recdistill.runs import replaced
    from recdistill.teachers.rationales import MAKERS, Work, make_words, maker
    from recdistill.teachers.rationales.making import require_own

    chosen = maker(MAKERS, name, key_values(options or []))
    drawn = getattr(chosen, "sampling", None)
    data = SequenceDataset.load(dataset)
    require_own(out, name)
    generator, lm = _generator(
        model,
        backend,
        adapter=adapter,
        base_url=base_url,
        api=api,
        api_key_env=api_key_env,
        concurrency=concurrency,
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        sampling=drawn,
    )
    with replaced(out, overwrite and not (cost or dry_run)), Bars() as bars:
        say = partial(bars.progress.print, markup=False, highlight=False)
        answers = 1 if drawn is None else drawn.answers
        work = Work(data, generator, out, encoder, lm, max_new_tokens, bars.add, say, answers)
        if dry_run:
            _show_prompts(chosen, work, bars)
        _show_cost(chosen, work, bars, prompt_price, answer_price, measure=cost)
        if cost or dry_run:
            return
        words = make_words(chosen, work)
    _closing(words.manifest, data, out, name)


def key_values(words: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words; ``a.b=c`` goes into the mapping a.

    Raises
    ------
    ConfigError
        A word is none.
    """
    import yaml

    from recdistill.errors import ConfigError

    found: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise ConfigError(f"{word!r} is no option. Allowed: KEY=VALUE. Pass, for example, domain=toys.")
        *outer, last = key.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(
                f"the value of {word!r} is not valid YAML. Allowed: numbers, words, [lists]. Quote it."
            ) from None
    return found


def _generator(model: str, backend: str, **given: Any) -> tuple[TextGenerator, LanguageModel | None]:
    """Return who answers, and the model where it is in this process."""
    from recdistill.errors import ConfigError, unknown_name
    from recdistill.teachers.backends import BACKENDS, HfGenerator, HttpGenerator, ScriptedGenerator
    from recdistill.teachers.generation.decoding import DecodeOptions
    from recdistill.teachers.language_model.loading import load_language_model

    if backend not in (*BACKENDS, "scripted"):
        raise unknown_name("backend", backend, [*BACKENDS, "scripted"])
    drawn: Sampling | None = given["sampling"]
    if backend == "scripted":
        return ScriptedGenerator(Path(model)), None
    if backend == "http":
        if not given["base_url"]:
            raise ConfigError(
                "--backend http has no address. Needed: where the model is served. Pass --base-url "
                "http://127.0.0.1:8000/v1"
            )
        names = ("api", "api_key_env", "concurrency", "max_new_tokens")
        more: dict[str, Any] = {name: given[name] for name in names}
        if drawn is not None:
            more |= {"answers": drawn.answers, "temperature": drawn.temperature}
            more["extra_body"] = {"top_k": drawn.top_tokens or None}  # not every endpoint knows it
        return HttpGenerator(model, given["base_url"], **more), None
    lm = load_language_model(model, adapter=given["adapter"], dtype=given["dtype"], device=given["device"])
    longest = given["max_new_tokens"]
    options = DecodeOptions("greedy", max_new_tokens=longest)
    if drawn is not None:
        options = DecodeOptions(
            "sample",
            beams=drawn.answers,
            max_new_tokens=longest,
            temperature=drawn.temperature,
            top_tokens=50 if drawn.top_tokens is None else drawn.top_tokens,
            seed=drawn.seed,
        )
    return HfGenerator(lm, options, batch_tokens=given["batch_tokens"]), lm


def _show_prompts(chosen: Maker, work: Work, bars: Bars) -> None:
    for kind, requests in chosen.asks(work).items():
        bars.progress.print(f"--- {kind}, the first of {len(requests):,}", markup=False)
        bars.progress.print(requests[0].prompt if requests else "(none)", markup=False)


def _show_cost(
    chosen: Maker,
    work: Work,
    bars: Bars,
    prompt_price: float | None,
    answer_price: float | None,
    *,
    measure: bool,
) -> None:
    from recdistill.teachers.cost import estimate_cost
    from recdistill.teachers.rationales import planned_cost

    groups = chosen.asks(work)
    lines = planned_cost(work, groups, prompt_price=prompt_price, answer_price=answer_price)
    if measure:
        for kind, requests in groups.items():
            found = estimate_cost(
                work.generator, requests, prompt_price=prompt_price, answer_price=answer_price
            )
            lines += [(f"{kind}: {what}", value) for what, value in found.lines()]
    for what, value in lines:
        bars.progress.print(f"{what:<22} {value}", markup=False, highlight=False)


def _closing(manifest: Any, data: SequenceDataset, out: Path, name: str) -> None:
    """Say what was written, what is missing, and which rows can read it."""
    from recdistill.knowledge import load_words

    words = load_words(out, data)
    for kind, count in manifest.get("texts", {}).items():
        missing = manifest.get("without_text", {}).get(kind, 0)
        print(f"{kind}: {count:,} texts, {missing:,} without (masked)")
    if "row_ids" in words.arrays:
        known = set(words["row_ids"].tolist())
        for split in ("train", "valid", "test"):
            rows = data.row_ids[data.rows(split)].tolist()
            covered = sum(row in known for row in rows)
            print(f"{split}: {covered:,} of {len(rows):,} rows may read a text about their user")
    strategy = {"slim": "slim-id"}.get(name, name)
    print(f"next: recdistill distill --dataset DATASET --strategy {strategy} --knowledge {out} --out r/")
