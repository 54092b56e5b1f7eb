"""How good an explanation is, without asking anybody: the mean of four terms, each in [0, 1].

With v(.) the encoder's vector of a text and cos⁺ the cosine, at least 0::

    coherence     variety x (1 - mean_j (1 - cos(v(sentence_j), v(sentence_j+1))) / 2)                    # (1)
    completeness  mean_a cos⁺(v(text), v(aspect_a))                                                       # (2)
    relevance     cos⁺(v(text), mean vector of the history's items)                                       # (3)
    consistency   cos⁺(v(text), v(decision))                                                              # (4)
    variety       mean over pieces of 32 words of (different words / words)                               # (5)

A text that is shorter than ten characters, or that repeats eight words in a row of what it was asked, gets 0.

LLM-CF's authors measure jumps between sentences by their sentiment and subjectivity, from lists of English words. Here
the encoder measures them, in any language. Their aspects hold one that their prompt does not ask for; here both are
the four of `decisions.ASPECTS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from recdistill.teachers.rationales.decisions import ASPECTS

Floats = npt.NDArray[np.float32]

_SHORTEST: Final = 10  # characters
_PIECE: Final = 32  # words; a share of different words falls with the length of a text
_ECHO: Final = 8  # words in a row
_BORDER: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD: Final = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without empty ones."""
    return [part.strip() for part in _BORDER.split(text) if part.strip()]


def usable(text: str, fixed: str) -> bool:
    """Tell whether a text is long enough and no echo of `fixed`, the words of the question."""
    if len(text.strip()) < _SHORTEST:
        return False
    return not _runs(text) & _runs(fixed)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[start : start + _ECHO]) for start in range(len(words) - _ECHO + 1)}


def variety(text: str) -> float:
    """Return eq. (5); 0 for a text without a word."""
    words = _WORD.findall(text.casefold())
    pieces = [words[start : start + _PIECE] for start in range(0, len(words), _PIECE)]
    return float(np.mean([len(set(piece)) / len(piece) for piece in pieces])) if pieces else 0.0


def score(text: str, fixed: str, decision: str, history: Floats, vectors: Mapping[str, Floats]) -> float:
    """Return how good an explanation is, in [0, 1].

    Parameters
    ----------
    text
        The explanation.
    fixed
        The words of the question, see `usable`.
    decision
        The decision as a sentence.
    history
        ``(D,)`` mean vector of the history's items.
    vectors
        ``(D,)`` vectors of the text, its sentences, the decision and `ASPECTS`, as `needed_texts` lists them.
    """
    if not usable(text, fixed):
        return 0.0
    whole, parts = vectors[text], [vectors[part] for part in sentences(text)]
    jumps = [(1 - _cosine(a, b)) / 2 for a, b in pairwise(parts)]
    coherence = variety(text) * (1 - (float(np.mean(jumps)) if jumps else 0.0))
    completeness = float(np.mean([max(0.0, _cosine(whole, vectors[aspect])) for aspect in ASPECTS]))
    relevance, consistency = (max(0.0, _cosine(whole, other)) for other in (history, vectors[decision]))
    return (coherence + completeness + relevance + consistency) / 4


def needed_texts(texts: Sequence[str], decisions: Sequence[str]) -> list[str]:
    """Return each text once whose vector `score` looks up."""
    found = [*ASPECTS, *decisions]
    for text in texts:
        found += [text, *sentences(text)]
    return list(dict.fromkeys(text for text in found if text.strip()))


def _cosine(first: Floats, second: Floats) -> float:
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 0 else 0.0
