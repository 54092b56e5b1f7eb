"""The stages of BIGRec as they lie in one folder: models, answers, knowledge.

::

    k/adapters/all/, fold-0/ ...      fine-tuned models
    k/in_sft_sample.parquet           row_id, model: which rows each was tuned on
    k/generations/all/, fold-0/ ...   what they wrote
    k/generations/shuffled/           what the model ``all`` wrote for some shuffled histories
    k/vectors/                        encoded texts
    k/knowledge.safetensors, k/manifest.json

Every stage keeps what it has and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import RunError
from recdistill.runs import MANIFEST, atomic_file, read_manifest
from recdistill.teachers.answer_time import ANSWER_TIME, clocked
from recdistill.teachers.backends.base import Generation, GenerationRequest, TextGenerator
from recdistill.teachers.base import Progress
from recdistill.teachers.bigrec.teacher import Speaker
from recdistill.teachers.generation.answers import (
    GenerationReport,
    GenerationStore,
    generate_rows,
    title_requests,
)
from recdistill.teachers.generation.lines import load_generations
from recdistill.teachers.language_model.prompts import PromptTemplate
from recdistill.teachers.order import shuffled_histories
from recdistill.types import PAD

if TYPE_CHECKING:
    from recdistill.teachers.language_model.loading import LanguageModel

Ints = npt.NDArray[np.int64]
ADAPTERS: Final = "adapters"
GENERATIONS: Final = "generations"
SAMPLE: Final = "in_sft_sample.parquet"
#: Answers to shuffled histories of some validation rows.
SHUFFLED: Final = "shuffled"
#: What a folder that this teacher began holds.
_OWN: Final = frozenset(
    {ADAPTERS, GENERATIONS, SAMPLE, ANSWER_TIME, "vectors", "shards", MANIFEST, "knowledge.safetensors"}
)


def require_own(folder: Path) -> None:
    """Let a run begin, or go on, in a folder that holds nothing but what this teacher wrote.

    Raises
    ------
    RunError
        The folder holds something else.
    """
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    foreign = sorted(name for name in found - _OWN if not name.startswith("."))
    if foreign:
        raise RunError(
            f"{folder} is in the way: it holds {foreign[0]!r}, which recdistill teach bigrec did not write. Allowed: a "
            "new folder, or one that this command began. Choose another --out."
        )
    if (folder / MANIFEST).is_file():
        teacher = read_manifest(folder, "knowledge").get("teacher")
        if teacher != "bigrec":
            raise RunError(
                f"{folder} holds the knowledge of the teacher {teacher!r}. Allowed: a new folder, or one that this "
                "command began. Choose another --out."
            )


def answer_length(
    lm: LanguageModel, template: PromptTemplate, titles: Sequence[str], share: float = 0.995
) -> int:
    """Return how many tokens an answer may have: the given quantile of the titles, and two more.

    The longest titles of a shop are several times as long as the rest; cutting their answers costs less than waiting
    for every answer to end.
    """
    known = [template.completion(title) for title in titles if title]
    lengths = [len(ids) for ids in lm.encode_answers(known)]
    return int(np.ceil(np.quantile(lengths, share))) + 2 if lengths else 2


def requests_for(
    dataset: SequenceDataset,
    rows: Ints,
    template: PromptTemplate,
    *,
    last_items: int = 10,
    lm: LanguageModel | None = None,
    max_tokens: int = 512,
    answer_tokens: int = 0,
    shuffle: int | None = None,
) -> list[GenerationRequest]:
    """Return the prompts of rows; with a model, without the oldest titles where prompt and answer would not fit.

    Parameters
    ----------
    dataset, rows
        Positions ``(n,)`` of the rows to be asked.
    template
        How a prompt reads.
    last_items
        How many of the last items are told.
    lm
        Whose tokens count, or None where the model is behind an endpoint.
    max_tokens
        Of prompt and answer together, at most the model's context.
    answer_tokens
        Kept for the answer.
    shuffle
        Seed of the order in which the told items are put, to see whether a model reads it; None: as they happened.
    """
    prompt_of: Callable[[Sequence[str]], str] = template.prompt
    if lm is not None:
        room, encode = min(max_tokens, lm.context or max_tokens), lm.encode

        def fitted(titles: Sequence[str]) -> str:
            return template.fit(titles, encode, room, answer_tokens)

        prompt_of = fitted
    if shuffle is None:
        return title_requests(dataset, rows, prompt_of, last_items=last_items)
    titles, keys = dataset.catalogue.titles, dataset.row_ids[rows].tolist()
    histories = shuffled_histories(dataset.histories(rows, last_items), shuffle).tolist()
    told = [[titles[item] for item in history if item != PAD and titles[item]] for history in histories]
    return [GenerationRequest(key, prompt_of(names)) for key, names in zip(keys, told, strict=True)]


def generate_answers(
    generator: TextGenerator,
    requests: Sequence[GenerationRequest],
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    progress: Progress | None = None,
) -> GenerationReport:
    """Ask what one model has not answered yet; its answers lie in ``folder/generations/NAME``.

    Parameters
    ----------
    generator
        The model.
    requests
        All of its rows.
    folder, name
        Where, and the model's name among the folds.
    settings
        JSON-able, beside those of the generator: prompt and dataset.
    progress
        Called with the rows answered.
    """
    store = GenerationStore(folder / GENERATIONS / name, {**generator.settings, **settings})
    with clocked(folder, len(store.pending(requests))):
        return generate_rows(generator, requests, store, progress=progress)


def load_answers(folder: Path, parts: Sequence[Speaker], dataset: SequenceDataset) -> dict[int, Generation]:
    """Return the answers of all models to their rows, by row id.

    Raises
    ------
    KnowledgeError
        A model has not answered anything.
    """
    answers: dict[int, Generation] = {}
    for part in parts:
        if len(part.answers):
            found = load_generations(folder / GENERATIONS / part.name)
            wanted = dataset.row_ids[part.answers].tolist()
            answers |= {row: found[row] for row in wanted if row in found}
    return answers


def generation_settings(folder: Path, parts: Sequence[Speaker]) -> dict[str, Any]:
    """Return what the answers were made with, by model, for the knowledge's manifest."""
    return {
        part.name: read_manifest(folder / GENERATIONS / part.name, "generations")["settings"]
        for part in parts
        if len(part.answers)
    }


def write_sample(folder: Path, learned: Mapping[str, Ints]) -> None:
    """Write which rows (ids) each model was tuned on: columns ``row_id`` and ``model``, by row id."""
    frame = pl.DataFrame(
        {
            "row_id": np.concatenate([np.asarray(ids, dtype=np.int64) for ids in learned.values()]),
            "model": [name for name, ids in learned.items() for _ in range(len(ids))],
        },
        schema={"row_id": pl.Int64, "model": pl.String},
    ).sort("row_id", "model")
    with atomic_file(folder / SAMPLE) as temporary:
        frame.write_parquet(temporary)


def answered_in_sample(folder: Path, parts: Sequence[Speaker], dataset: SequenceDataset) -> int:
    """Return how many rows are answered by a model that was tuned on them: their answers are too good."""
    if not (folder / SAMPLE).is_file():
        return 0
    sample = pl.read_parquet(folder / SAMPLE)
    return sum(
        int(
            np.isin(
                dataset.row_ids[part.answers], sample.filter(pl.col("model") == part.name)["row_id"]
            ).sum()
        )
        for part in parts
    )


def require_answered(reports: Sequence[GenerationReport]) -> None:
    """Stop where most rows failed: knowledge of a few rows by chance is not what was asked for.

    Raises
    ------
    RunError
        Less than half of the rows have an answer.
    """
    rows, answered = sum(r.rows for r in reports), sum(r.answered for r in reports)
    if 2 * answered < rows:
        raise RunError(
            f"only {answered:,} of {rows:,} rows have an answer. At least half are needed to go on. See failures.jsonl "
            "in the generations folder, and give the same command again; or ground what is there with --stage ground."
        )
