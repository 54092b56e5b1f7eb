"""Teachers of transitions built again from what their knowledge says of them, and asked again.

A teacher counts training rows alone while validation picks its weights. Once they are picked, the validation rows are
the newest that there are: transitions that happened there, items that were first bought there. `teach_again` lets a
teacher count them too, with its weights and its temperature as they are, so that `recdistill refit` can hand the same
to the student.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge import Knowledge, Walks, has_walks, load_knowledge, load_walks
from recdistill.teachers.base import Progress, knowledge_from_scorer
from recdistill.teachers.blend import BlendScorer, scorer_from
from recdistill.teachers.graph import GraphOptions, GraphScorer
from recdistill.teachers.text import encode_text
from recdistill.teachers.walks import default_count, take_walks

__all__ = ["AGAIN", "HISTORY_LENGTH", "scorer_again", "teach_again"]

#: The history that these teachers read, as in `GraphTeacher` and `BlendTeacher`.
HISTORY_LENGTH: Final = 50
#: What the manifest says of a folder, and not of its teacher.
_OF_THE_FOLDER: Final = frozenset({"rows", "fields", "item_count", "created_at", "versions", "cpu_seconds"})


def scorer_again(
    manifest: Mapping[str, Any], dataset: SequenceDataset, cache: Path
) -> GraphScorer | BlendScorer:
    """Build the scorer of a teacher from the manifest of its knowledge.

    Parameters
    ----------
    manifest
        Of a teacher among `AGAIN`.
    dataset
        The one that it answered, or a view of it that learns from further splits.
    cache
        Where encoded titles are kept.

    Raises
    ------
    ConfigError
        An encoder is gone, or a blend heard a scorer that its manifest does not hold.
    KnowledgeError
        The teacher is of another kind.
    """
    name = manifest.get("teacher")
    if name not in _MADE:
        raise KnowledgeError(
            f"a {name} teacher cannot be asked again from its knowledge. Allowed: {', '.join(AGAIN)}. Make its "
            "knowledge anew with recdistill teach."
        )
    return _MADE[name](manifest, dataset, cache)


def _graph(manifest: Mapping[str, Any], dataset: SequenceDataset, cache: Path) -> GraphScorer:
    encoder = manifest.get("encoder")
    text = None if encoder is None else encode_text(dataset.catalogue.titles, encoder, cache=cache).vectors
    return GraphScorer(dataset, text, GraphOptions(**manifest["options"]))


def _blend(manifest: Mapping[str, Any], dataset: SequenceDataset, cache: Path) -> BlendScorer:
    titles = dataset.catalogue.titles
    texts = {encoder: encode_text(titles, encoder, cache=cache).vectors for encoder in manifest["texts"]}
    return scorer_from(manifest, dataset, texts)


_MADE: Final[dict[str, Callable[..., GraphScorer | BlendScorer]]] = {"graph": _graph, "blend": _blend}
#: Names of the teachers that their knowledge says enough of.
AGAIN: Final = tuple(_MADE)


def teach_again(
    folder: Path,
    dataset: SequenceDataset,
    *,
    cache: Path,
    bar: Callable[[str, int], Progress] = lambda text, total: lambda done: None,
) -> tuple[Knowledge, Walks | None]:
    """Ask a teacher about the same rows again, when it has counted all training rows of `dataset`.

    Weights, temperature, length of the lists and item vectors are those of `folder`. The answer of a training row is
    again without what that row itself put in, those of the further splits among them.

    Parameters
    ----------
    folder
        Knowledge of a teacher among `AGAIN`.
    dataset
        A view of the dataset that it answered, see `SequenceDataset.learning_from`.
    cache
        Where encoded titles are kept.
    bar
        Makes a progress bar from what happens and how many answers it takes.

    Returns
    -------
    tuple
        Its answers, and where there were walks before, new ones: as many, or with the usual number as many as are
        usual now that more items are warm.

    Raises
    ------
    ConfigError, KnowledgeError
        As `scorer_again`.
    FingerprintError
        The knowledge comes from another dataset.
    """
    before = load_knowledge(folder, dataset)
    manifest = before.manifest
    scorer = scorer_again(manifest, dataset, cache)
    temperature, top_k = float(manifest["temperature"]), int(manifest["top_k"])
    answers = knowledge_from_scorer(
        scorer.score_rows,
        dataset,
        dataset.positions_of(before.row_ids),
        length=HISTORY_LENGTH,
        top_k=top_k,
        temperature=temperature,
        progress=bar("answering rows", len(before)),
        item_embeddings=before.item_embeddings,
        manifest={key: value for key, value in manifest.items() if key not in _OF_THE_FOLDER},
    )
    if not has_walks(folder):
        return answers, None
    written = load_walks(folder, dataset)
    usual = len(written) == default_count(dataset.learning_from(), written.steps)
    count = default_count(dataset, written.steps) if usual else len(written)
    walks = take_walks(
        scorer,
        dataset,
        count=count,
        steps=written.steps,
        breadth=int(written.manifest["breadth"]),
        temperature=temperature,
        top_k=top_k,
        seed=int(written.manifest["seed"]),
        progress=bar("walks", count * written.steps),
    )
    return answers, walks
