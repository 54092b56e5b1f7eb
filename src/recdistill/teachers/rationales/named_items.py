"""The items that SLIM's third step names, as a ranking of the catalogue that any strategy can learn from.

A language model names items from memory, and some of them do not exist. Each name is grounded to the item whose title
is nearest (`recdistill.teachers.grounding`, as for BIGRec; a name that is a title is that item). A row's ranking is::

    the items of its rationale's names, in the order in which they are named, each once;
    then all others by their distance from the first of them.

A row reads the rationale that its user's vectors come from (`Words`), so a name was written before the row's answer
was known. A row without a rationale, or with one that names nothing, has no ranking. With TF-IDF a name that shares no
word with any title names nothing: its vector is as far from one title as from another. Other encoders read meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.words import Words
from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation
from recdistill.teachers.base import Progress
from recdistill.teachers.bigrec.teacher import ground_answers
from recdistill.teachers.grounding.encoders import TextEncoder
from recdistill.teachers.grounding.space import GroundOptions, GroundSpace
from recdistill.teachers.rationales.encoding import load_encoder
from recdistill.teachers.text.item_text import TFIDF
from recdistill.titles import normalise_title
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class FolderEncoder:
    """The encoder that a folder of rationales was made with, for grounding: fitted once, and the same ever since.

    Parameters
    ----------
    folder
        The folder of rationales.

    Raises
    ------
    RunError
        The encoder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.encoder = load_encoder(folder / "encoder")
        self.name = self.encoder.name
        files = sorted((folder / "encoder").glob("[!.]*"))
        self.fingerprint = fingerprint(self.name, *(path.read_bytes() for path in files if path.is_file()))

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        """Return ``(n, D)`` float32."""
        found = self.encoder.encode(texts)
        if progress is not None:
            progress(len(texts))
        return found


@dataclass(frozen=True)
class NameFacts:
    """What became of the names.

    Attributes
    ----------
    names
        Different ones.
    titles
        How many of them are a title.
    unknown
        How many name nothing.
    rows, without
        Rows with a ranking, and rows with a rationale but none.
    """

    names: int
    titles: int
    unknown: int
    rows: int
    without: int

    def __str__(self) -> str:
        return (
            f"{self.names:,} names: {self.titles:,} are titles, {self.unknown:,} name nothing, the others take the "
            f"nearest title's item; {self.rows:,} rows have a ranking, {self.without:,} with a rationale have none"
        )


def ground_names(
    words: Words,
    dataset: SequenceDataset,
    out: Path,
    *,
    encoder: TextEncoder | None = None,
    metric: str = "cosine",
    top_k: int = 50,
    progress: Progress | None = None,
) -> tuple[Knowledge, NameFacts]:
    """Write the knowledge folder of the named items; one that was begun is continued.

    Parameters
    ----------
    words
        Of ``recdistill rationales slim``, read from its folder.
    dataset
        The one they were made from.
    out
        The knowledge folder.
    encoder
        Embeds names and titles; None: the one of the rationales.
    metric
        ``l2``, ``squared_l2`` or ``cosine``.
    top_k
        Items kept of each ranking.
    progress
        Called with the rows of each finished chunk.

    Raises
    ------
    KnowledgeError
        The words are not SLIM's, their texts are not those of their vectors, no name leads to an item, or `out` was
        begun with other settings.
    """
    said = _names_of_texts(words)
    encoder = encoder or FolderEncoder(_folder(words))
    names = sorted({name for row in said for name in row})
    found = nearest_items(names, dataset, encoder, out / "vectors", metric)
    titles = [normalise_title(title) for title in dataset.catalogue.titles]
    named = [
        tuple(titles[item] for item in dict.fromkeys(found[n] for n in row if n in found)) for row in said
    ]
    rows, places = words["row_ids"].tolist(), words["places"].tolist()
    answers = {
        row: Generation(row, named[place]) for row, place in zip(rows, places, strict=True) if named[place]
    }
    if not answers:
        raise KnowledgeError(
            f"none of {len(names):,} names leads to an item, so there is nothing to rank. Needed: rationales whose "
            "third step names items in words of the titles. Read users.parquet, or pass --encoder with another one."
        )
    facts = NameFacts(
        len(names), sum(name in set(titles) for name in names), len(names) - len(found), len(answers),
        len(rows) - len(answers),
    )  # fmt: skip
    knowledge = ground_answers(
        dataset,
        answers,
        encoder,
        out,
        GroundOptions(metric, None, "beams_first", top_k),
        facts={
            "teacher": "slim-items",
            "source": "arXiv 2403.04260",
            "names": fingerprint(*("\n".join(row) for row in said)),
            "name_facts": vars(facts),
        },
        progress=progress,
    )
    return knowledge, facts


def nearest_items(
    names: Sequence[str], dataset: SequenceDataset, encoder: TextEncoder, cache: Path, metric: str = "cosine"
) -> dict[str, int]:
    """Return the item whose title is nearest to each name; none for a name without a vector, or, with TF-IDF, without a
    word of a title.

    Parameters
    ----------
    names
        Normalised, each once.
    dataset
        Its catalogue has the titles; items without one are never found, of several with one title it is the first.
    encoder
        Embeds both.
    cache
        Folder where vectors are kept.
    metric
        ``l2``, ``squared_l2`` or ``cosine``.
    """
    if not names:
        return {}
    titles = [normalise_title(title) for title in dataset.catalogue.titles]
    space = GroundSpace.build(titles, names, encoder, cache, GroundOptions(metric, top_k=1))
    queries = space.queries(np.arange(len(names)))
    spoken = {word for title in titles for word in _words(title)}
    shared = [encoder.name != TFIDF or not spoken.isdisjoint(_words(name)) for name in names]
    known = np.flatnonzero(queries.any(1) & np.array(shared))
    if not len(known):
        return {}
    nobody = np.zeros(0, dtype=np.int64)
    targets = np.zeros(len(known), dtype=np.int64)  # nobody asks where they stand
    nearest = space.grounder.ground(queries[known], targets, (nobody, nobody), top_k=1).ranking[:, 0]
    items = dict(zip((names[k] for k in known.tolist()), nearest.tolist(), strict=True))
    items |= {name: space.index.exact(name)[0] for name in names if space.index.exact(name)}
    return {name: item for name, item in items.items() if item != PAD}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _names_of_texts(words: Words) -> list[list[str]]:
    """Return the normalised names of each of the V texts, in order.

    Raises
    ------
    KnowledgeError
        These are no rationales in steps, or not the texts of the vectors.
    """
    if words.maker != "slim":
        raise KnowledgeError(
            f"the rationales of {words.maker!r} have no step that names items. Allowed: those of 'slim'. Make them "
            "with: recdistill rationales slim"
        )
    table = words.table("users")
    told = table.filter(table["text"] != "")
    if told["newest_event"].to_list() != words["newest_event"].tolist():
        raise KnowledgeError(
            f"users.parquet in {words.folder} does not hold the texts that the vectors were made of. Both must agree: "
            "run the same recdistill rationales command again."
        )
    rows = [[normalise_title(name) for name in row] for row in told["items"].to_list()]
    return [[name for name in row if name] for row in rows]


def _folder(words: Words) -> Path:
    assert words.folder is not None  # its table was read from there
    return words.folder
