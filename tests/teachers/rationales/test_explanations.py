"""Scores of explanations: the gates, the four terms one by one, and what they prefer."""

import math
from itertools import pairwise

import numpy as np
import pytest

from recdistill.teachers.rationales.decisions import ASPECTS, Explaining, decision_sentence
from recdistill.teachers.rationales.explanations import needed_texts, score, sentences, usable, variety
from recdistill.teachers.text import encode_text

FIXED = Explaining("films").fixed
DECISION = decision_sentence("Alien", True)
GOOD = (
    "The person likes dark science fiction about crews far from home. Alien is such a film, and Aliens or The Thing "
    'are similar. It fits the taste well. The person took "Alien" because more of the same was wanted.'
)
TITLES = ["Aliens dark science fiction", "The Thing horror far from home", "Up", "The Sea Within"]


def vectors_of(texts, decision=DECISION):
    wanted = [*needed_texts(texts, [decision]), *TITLES]
    table = encode_text(wanted, size=64).vectors
    return dict(zip(wanted, table, strict=True))


def scored(*texts):
    vectors = vectors_of(list(texts))
    history = np.mean([vectors[TITLES[0]], vectors[TITLES[1]]], axis=0)
    return [score(text, FIXED, DECISION, history, vectors) for text in texts]


def test_empty_short_and_echoed_answers_get_nothing():
    echo = (
        "Sure. Explain the decision step by step: the person's taste; what the film is and what is similar."
    )
    found = scored(GOOD, "", "  \n ", "Fits.", echo)
    assert found[0] > 0.1
    assert found[1:] == [0.0] * 4


def test_a_varied_explanation_beats_one_that_repeats_itself():
    words = "Alien fits. Alien fits. Alien fits. Alien fits. Alien fits. Alien fits. Alien fits. Alien fits."
    good, repeated = scored(GOOD, words)
    assert good > repeated > 0


def test_it_is_the_naive_mean_of_four_terms():
    vectors = vectors_of([GOOD])
    history = vectors[TITLES[0]]

    def cosine(a, b):
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(x) ** 2 for x in b))

    parts = [p.strip() + "." for p in GOOD.rstrip(".").split(". ")]
    assert sentences(GOOD) == parts
    jumps = [(1 - cosine(vectors[a], vectors[b])) / 2 for a, b in pairwise(parts)]
    coherence = variety(GOOD) * (1 - sum(jumps) / len(jumps))
    complete = sum(max(0, cosine(vectors[GOOD], vectors[aspect])) for aspect in ASPECTS) / len(ASPECTS)
    rest = [max(0, cosine(vectors[GOOD], other)) for other in (history, vectors[DECISION])]
    naive = (coherence + complete + sum(rest)) / 4
    assert score(GOOD, FIXED, DECISION, history, vectors) == pytest.approx(naive, abs=1e-6)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            GOOD,
            GOOD.replace("dark science fiction about crews far from home", "gardens and roses"),
        ),  # relevance
        (GOOD, GOOD.replace('took "Alien"', "left")),  # consistency
        (GOOD, "The other thing is here. A rose. Then rain, later some snow."),  # all
    ],
)
def test_every_term_counts(better, worse):
    first, second = scored(better, worse)
    assert first > second


def test_variety():
    assert variety("one two three four") == 1.0
    assert variety("one one one one") == 0.25
    assert variety("...") == 0.0
    assert variety(" ".join(f"w{i}" for i in range(32)) + " a a a a") == (1 + 0.25) / 2


def test_sentences_and_the_gate():
    assert sentences("One. Two!\nThree? ") == ["One.", "Two!", "Three?"]
    assert usable("The person watched dark films before.", FIXED)
    assert not usable("123456789", FIXED)


def test_nothing_but_signs_is_scored_without_a_vector_of_its_own():
    vectors = {text: np.zeros(3, np.float32) for text in needed_texts(["!!! ... ??? !!!"], [DECISION])}
    assert score("!!! ... ??? !!!", FIXED, DECISION, np.zeros(3, np.float32), vectors) == 0.0
