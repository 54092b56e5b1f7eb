"""What a language model's answers look like beside the catalogue, and beside the rows' own histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.knowledge import Knowledge
from recdistill.teachers.backends.base import Generation
from recdistill.teachers.grounding.beams import TitleIndex
from recdistill.titles import normalise_title

#: The one function for titles and answers.
Normalise = Callable[[str], str]


@dataclass(frozen=True)
class AnswerFacts:
    """What the answers and their groundings look like; shares are of the answered rows.

    Attributes
    ----------
    rows
        Rows that have an answer.
    valid_titles
        First texts that are a title of the catalogue when case, blanks and punctuation do not count.
    exact_titles
        First texts that are a title letter by letter; such a text is grounded at distance 0.
    target_titles
        First texts that are the title of the row's true item.
    empty
        First texts without a letter.
    distinct_texts
        Different first texts.
    distinct_items
        Different items at the first place of the rankings.
    history_repeats
        Rankings whose first item is in the row's history.
    """

    rows: int
    valid_titles: float
    exact_titles: float
    target_titles: float
    empty: float
    distinct_texts: int
    distinct_items: int
    history_repeats: float

    def __str__(self) -> str:
        return (
            f"{self.rows:,} answers: {self.valid_titles:.1%} are titles of the catalogue ({self.exact_titles:.1%} "
            f"letter by letter, {self.target_titles:.1%} the true item's), {self.empty:.1%} empty, "
            f"{self.distinct_texts:,} different texts; first items: {self.distinct_items:,} different, "
            f"{self.history_repeats:.1%} from the row's own history"
        )


def answer_facts(
    dataset: SequenceDataset,
    answers: Mapping[int, Generation],
    knowledge: Knowledge,
    normalise: Normalise = normalise_title,
) -> AnswerFacts:
    """Describe answers and the knowledge made of them.

    Parameters
    ----------
    dataset
        The rows and titles.
    answers
        By row id.
    knowledge
        With a ranking of the same rows.
    normalise
        As in `ground_answers`.
    """
    rows = dataset.positions_of(knowledge.row_ids)
    titles = [normalise(title) for title in dataset.catalogue.titles]
    texts = [texts_of(answers[row], normalise)[0] for row in knowledge.row_ids.tolist()]
    index, targets = TitleIndex(titles), dataset.targets(rows).tolist()
    first = np.asarray(knowledge.ranking)[:, 0]  # (N,)
    owner, item = dataset.seen(rows)
    repeats = np.zeros(len(rows), dtype=np.bool_)
    repeats[owner[item == first[owner]]] = True
    return AnswerFacts(
        rows=len(texts),
        valid_titles=_share([index.valid(text) for text in texts]),
        exact_titles=_share([bool(index.exact(text)) for text in texts]),
        target_titles=_share(
            [text != "" and text == titles[t] for text, t in zip(texts, targets, strict=True)]
        ),
        empty=_share([not text for text in texts]),
        distinct_texts=len(set(texts)),
        distinct_items=len(np.unique(first)),
        history_repeats=float(repeats.mean()),
    )


def texts_of(answer: Generation, normalise: Normalise) -> list[str]:
    """Return the answer's texts, best first; nothing written is the empty text."""
    return [normalise(text) for text in answer.texts] or [""]


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if values else 0.0
