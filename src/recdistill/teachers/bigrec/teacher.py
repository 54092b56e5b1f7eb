"""BIGRec: a language model writes the title of the next item, and the writing is grounded to the catalogue.

Bao et al., arXiv 2308.08434; the teacher of DLLM2Rec (arXiv 2405.00338). Three stages, each of which keeps what it
made and goes on where it was stopped:

1. fine-tune: prompt and answer for a sample of training rows (`finetune`), one model, or K + 1 with cross-fitting;
2. generate: what the model writes for every row (`generations`);
3. ground: vectors of what was written against vectors of the titles (`grounding`), into a knowledge folder.

Where the authors' code differs: it computes distances in half precision, over a dense matrix of rows and items, with
the untuned model's vectors (DLLM2Rec) or the tuned one's (BIGRec), and matches targets by title. Here distances are
float32, in chunks, targets are matched by id, and the encoder is a choice that the manifest records.

Cross-fitting. A model that was tuned on a row knows its answer. With K folds a training row is answered by the model
that was tuned without the row's sequence; valid and test rows by one more model that may use all training rows. Their
texts are embedded by that last model: an encoder sees titles, not rows.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.cluster import Cluster
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import provenance
from recdistill.teachers.backends.base import Generation
from recdistill.teachers.base import Progress, some_rows
from recdistill.teachers.grounding.answer_facts import Normalise, texts_of
from recdistill.teachers.grounding.encoders import TextEncoder
from recdistill.teachers.grounding.injection import GAMMAS, Injection, choose_gamma, ground_injected
from recdistill.teachers.grounding.result import Grounding
from recdistill.teachers.grounding.space import GroundOptions, GroundSpace
from recdistill.titles import normalise_title

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

#: Name of the model that answers what no fold answers.
ALL: Final = "all"
#: Rows of one shard of knowledge.
SHARD_ROWS: Final = 4096
#: γ of an injection is chosen on at most so many validation rows.
TUNING_ROWS: Final = 2048


@dataclass(frozen=True, eq=False)
class Speaker:
    """One model of a cross-fitted teacher.

    Attributes
    ----------
    name
        ``all``, or ``fold-J``.
    answers
        ``(n,)`` positions of the rows it answers.
    may_learn
        ``(m,)`` positions of the training rows it may be tuned on.
    """

    name: str
    answers: Ints
    may_learn: Ints


def speakers(
    dataset: SequenceDataset, rows: Ints, fold_of_row: Ints | None = None, *, encodes: bool = False
) -> list[Speaker]:
    """Divide rows among the models.

    Parameters
    ----------
    dataset
        The rows.
    rows
        ``(n,)`` positions to be answered.
    fold_of_row
        ``(R,)`` fold of every row, whole sequences in one fold; None: one model for all.
    encodes
        Whether the model ``all`` is needed although it answers no row, because it embeds the texts.
    """
    train = dataset.rows("train")
    if fold_of_row is None:
        return [Speaker(ALL, rows, train)]
    learned = np.isin(rows, dataset.rows("train", prefixes=True))
    found = [
        Speaker(
            f"fold-{fold}", rows[learned & (fold_of_row[rows] == fold)], train[fold_of_row[train] != fold]
        )
        for fold in range(int(fold_of_row.max()) + 1)
    ]
    found.append(Speaker(ALL, rows[~learned], train))
    return [one for one in found if len(one.answers) or (encodes and one.name == ALL)]


def ground_answers(
    dataset: SequenceDataset,
    answers: Mapping[int, Generation],
    encoder: TextEncoder,
    folder: Path,
    options: GroundOptions | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    injection: Injection | None = None,
    choose: bool = True,
    normalise: Normalise = normalise_title,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Knowledge:
    """Ground what was written into a knowledge folder; a folder that was begun is continued.

    Parameters
    ----------
    dataset
        Where the rows and titles come from.
    answers
        By row id; rows without an answer get no knowledge.
    encoder
        Embeds titles and answers.
    folder
        The knowledge folder; encoded texts are kept in its ``vectors/``.
    options
        See `GroundOptions`.
    facts
        JSON-able, for the manifest: model, prompt, decoding; another teacher's name and source.
    injection
        What corrects the distances, or None.
    choose
        Whether the injection's γ is chosen on validation rows; else it stays.
    normalise
        The one function for titles and answers.
    progress
        Called with the rows of each finished chunk; rows grounded before count at once.
    cluster
        Whose workers ground the shards; None: this process. The result is the same to the byte.

    Returns
    -------
    Knowledge
        Rankings, distances, target ranks, query embeddings (of the first texts) and item embeddings, in the space
        in which distances were measured.

    Raises
    ------
    KnowledgeError
        There is no answer, or the folder was begun with other settings.
    """
    options = options or GroundOptions()
    if not answers:
        raise KnowledgeError(
            "no row has an answer, so there is nothing to ground. At least one row must be answered: run "
            "recdistill teach bigrec --stage generate first."
        )
    ids = np.array(sorted(answers), dtype=np.int64)
    texts = [texts_of(answers[row], normalise) for row in ids.tolist()]
    space = GroundSpace.build(
        [normalise(title) for title in dataset.catalogue.titles],
        [row[0] for row in texts],
        encoder,
        folder / "vectors",
        options,
    )
    rows = dataset.positions_of(ids)
    tuning: dict[float, float] = {}
    if injection is not None and choose:
        injection, tuning = _tuned(injection, space, dataset, rows)
    manifest = {
        "teacher": "bigrec",
        "source": "arXiv 2308.08434",
        **(facts or {}),
        "metric": options.metric,
        "distance": options.metric if injection is None else f"injected {options.metric}",
        "grounding": asdict(options),
        "encoder": encoder.name,
        "encoder_fingerprint": encoder.fingerprint,
        "injection": {"kind": "none"} if injection is None else injection.facts,
        "injection_tuning": {f"{gamma:g}": value for gamma, value in tuning.items()},
        "top_k": min(options.top_k, dataset.item_count),
        **provenance(dataset),
    }
    writer = ShardWriter(folder, dataset.item_count, manifest)
    pending = np.searchsorted(ids, writer.pending(ids))
    if progress is not None and len(pending) < len(ids):
        progress(len(ids) - len(pending))
    parts = [pending[start : start + SHARD_ROWS] for start in range(0, len(pending), SHARD_ROWS)]
    worker = [space, dataset, rows, texts, injection, options]
    with closing(_grounded_parts(worker, parts, progress, cluster)) as grounded:
        for number, arrays in grounded:
            writer.append(ids[parts[number]], **arrays)
    return writer.finish(space.table)


@dataclass
class GroundWorker:
    """Grounds parts of the rows; on a cluster it is made on each worker.

    Attributes
    ----------
    space, dataset, injection, options
        As in `ground_answers`.
    rows, texts
        Positions ``(n,)`` of all rows that have an answer, and what was written for each.
    progress
        Called with the rows of each finished chunk.
    """

    space: GroundSpace
    dataset: SequenceDataset
    rows: Ints
    texts: list[list[str]]
    injection: Injection | None
    options: GroundOptions
    progress: Progress | None = None

    def run(self, task: Ints) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of a shard for the rows at some places of `rows`."""
        queries = self.space.queries(task)
        named = [self.texts[index] for index in task] if self.options.beam_rule == "beams_first" else None
        found = _grounded(
            self.space,
            self.dataset,
            self.rows[task],
            queries,
            named,
            self.injection,
            self.options.top_k,
            self.progress,
        )
        return {"query_embeddings": queries, **found.arrays}


def _grounded_parts(
    worker: list[Any], parts: list[Ints], progress: Progress | None, cluster: Cluster | None
) -> Generator[tuple[int, dict[str, npt.NDArray[Any]]], None, None]:
    """Yield the number and the arrays of each part, here or from the workers of a cluster."""
    if cluster is None:
        here = GroundWorker(*worker)
        here.progress = progress
        yield from ((number, here.run(part)) for number, part in enumerate(parts))
        return
    for number, arrays in cluster.run(GroundWorker, worker, parts, "the rows to be grounded"):
        yield number, arrays
        if progress is not None:
            progress(len(parts[number]))


def ground_ranks(
    dataset: SequenceDataset,
    answers: Mapping[int, Generation],
    encoder: TextEncoder,
    folder: Path,
    options: GroundOptions | None = None,
    *,
    injection: Injection | None = None,
    normalise: Normalise = normalise_title,
) -> tuple[Ints, Ints]:
    """Ground answers as `ground_answers` does, but keep only where the true items stand.

    Parameters
    ----------
    dataset, answers, encoder, folder, options, injection, normalise
        As there; the injection has its γ.

    Returns
    -------
    tuple
        ``(n,)`` row ids, ascending, and ``(n,)`` ranks of their targets, seen items kept.
    """
    options = options or GroundOptions()
    ids = np.array(sorted(answers), dtype=np.int64)
    texts = [texts_of(answers[row], normalise) for row in ids.tolist()]
    titles = [normalise(title) for title in dataset.catalogue.titles]
    space = GroundSpace.build(titles, [row[0] for row in texts], encoder, folder / "vectors", options)
    named = texts if options.beam_rule == "beams_first" else None
    rows, queries = dataset.positions_of(ids), space.queries(np.arange(len(ids)))
    found = _grounded(space, dataset, rows, queries, named, injection, 1, None)
    return ids, found.target_rank.astype(np.int64)


def _grounded(
    space: GroundSpace,
    dataset: SequenceDataset,
    rows: Ints,
    queries: Floats,
    named: list[list[str]] | None,
    injection: Injection | None,
    top_k: int,
    progress: Progress | None,
) -> Grounding:
    beams = None if named is None else space.index.named(named)
    if injection is not None:
        return ground_injected(
            injection, space.grounder, queries, rows, dataset, top_k=top_k, beams=beams, progress=progress
        )
    targets, seen = dataset.targets(rows), dataset.seen(rows)
    return space.grounder.ground(queries, targets, seen, top_k=top_k, beams=beams, progress=progress)


def _tuned(
    injection: Injection, space: GroundSpace, dataset: SequenceDataset, rows: Ints
) -> tuple[Injection, dict[float, float]]:
    valid = np.flatnonzero(np.isin(rows, dataset.rows("valid")))
    if not len(valid):
        raise ConfigError(
            "gamma of the injection is chosen on validation rows, and none of them is answered. Answer some (--splits "
            "train,valid,test), or give the value: --gamma 0.5"
        )
    valid = some_rows(valid, TUNING_ROWS)
    return choose_gamma(
        injection, space.grounder, space.queries(valid), rows[valid], dataset, gammas=GAMMAS, k=20
    )
