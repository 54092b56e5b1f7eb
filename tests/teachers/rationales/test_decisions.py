"""What is asked: a uniform sample, both outcomes, nothing of the future, and the outcome in the prompt."""

from dataclasses import replace

import numpy as np
import pytest

from recdistill.data.clock import RowClock
from recdistill.data.interactions import Interactions
from recdistill.data.prepare import prepare
from recdistill.errors import ConfigError
from recdistill.teachers.rationales.decisions import (
    DOMAINS,
    Explaining,
    decision_requests,
    decision_sentence,
    draw_decisions,
)

TEXTS = [f"Saga {item // 5} part {item}" for item in range(40)]


@pytest.fixture(scope="module", params=["leave-one-out", "global-time"])
def dataset(request):
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 60, 900))
    frame = {"user_id": users, "item_id": rng.integers(0, 40, 900), "timestamp": rng.integers(0, 200, 900)}
    return prepare(Interactions.from_frame(frame), None, split=request.param, window=5)


def test_the_sample_is_of_training_rows_and_as_large_as_asked(dataset):
    train = dataset.rows("train")
    found = draw_decisions(dataset, TEXTS, share=0.2, seed=1)
    assert len(found) == round(0.2 * len(train))
    assert np.isin(found.rows, train).all()
    assert (np.diff(found.rows) > 0).all()
    assert len(draw_decisions(dataset, TEXTS, share=1.0)) == len(train)
    again = draw_decisions(dataset, TEXTS, share=0.2, seed=1)
    assert (again.rows == found.rows).all()
    assert (again.items == found.items).all()
    assert not np.array_equal(draw_decisions(dataset, TEXTS, share=0.2, seed=2).rows, found.rows)
    counts = np.zeros(len(dataset.row_ids))
    for seed in range(300):
        counts[draw_decisions(dataset, TEXTS, share=0.1, seed=seed).rows] += 1
    assert counts[train] == pytest.approx(30, abs=25)  # every row about as often


def test_refused_items_were_chosen_by_others_before_and_not_by_this_person(dataset):
    found = draw_decisions(dataset, TEXTS, share=1.0, refused=0.7)
    times = RowClock.of(dataset).times
    train = dataset.rows("train")
    assert 0.55 < (~found.labels).mean() < 0.75
    for row, item, chosen in zip(found.rows, found.items, found.labels, strict=True):
        target = int(dataset.targets(np.array([row]))[0])
        assert chosen == (item == target)
        if not chosen:
            history = dataset.events[dataset.offsets[dataset.row_sequences[row]] : dataset.row_events[row]]
            assert item not in history
            assert item in dataset.targets(train[times[train] < times[row]])


def test_a_later_choice_does_not_move_what_is_asked_earlier(dataset):
    """The draw of a refused item looks at the past alone: other targets after a row leave its item possible."""
    found = draw_decisions(dataset, TEXTS, share=1.0, refused=1.0, seed=3)
    later = {}
    for row, item, chosen in zip(found.rows, found.items, found.labels, strict=True):
        own = dataset.events[dataset.row_events[row] + 1 : dataset.offsets[dataset.row_sequences[row] + 1]]
        later[int(row)] = (not chosen) and item in own
    assert any(later.values())  # an item that the person takes later may be one that was not taken now


def test_rows_without_text_are_not_asked_about(dataset):
    texts = ["" if item % 4 == 0 else text for item, text in enumerate(TEXTS)]
    found = draw_decisions(dataset, texts, share=1.0, last_items=1)
    assert all(texts[item] for item in found.items)
    assert all(texts[item] for item in dataset.histories(found.rows, 1)[:, 0])
    with pytest.raises(ConfigError, match="no training row whose items have a text"):
        draw_decisions(dataset, [""] * 40)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"refused": -0.1}, {"last_items": 0}])
def test_options_are_refused(dataset, wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        draw_decisions(dataset, TEXTS, **wrong)


@pytest.mark.parametrize("domain", DOMAINS)
def test_prompts_tell_history_item_and_outcome_and_nothing_after_the_row(dataset, domain):
    found = draw_decisions(dataset, TEXTS, share=0.3)
    requests = decision_requests(dataset, found, TEXTS, Explaining(domain), last_items=3)
    assert [r.key for r in requests] == dataset.row_ids[found.rows].tolist()
    names = {text: item for item, text in enumerate(TEXTS)}
    for request, row, item, chosen in zip(requests, found.rows, found.items, found.labels, strict=True):
        facts, rest = request.prompt.split("### Facts:\n")[1].split("\nThe other ")
        told = [names[part] for part in facts.split('"')[1::2]]
        before = dataset.events[dataset.offsets[dataset.row_sequences[row]] : dataset.row_events[row]]
        assert told == before[-3:].tolist()  # what precedes the row's target, and not one event more
        assert f'"{TEXTS[item]}"' in rest
        assert ("The person took it." in rest) == bool(chosen)
        assert ("The person did not take it." in rest) == (not chosen)
        assert request.prompt.endswith("### Explanation:\n")


def test_prompts_fit_by_dropping_the_oldest(dataset):
    found = draw_decisions(dataset, TEXTS, share=0.3)
    words, encode = Explaining(), lambda text: text.split()
    longest = max(
        len(encode(r.prompt)) for r in decision_requests(dataset, found, TEXTS, words, last_items=8)
    )
    cut = decision_requests(
        dataset, found, TEXTS, words, last_items=8, encode=encode, max_tokens=longest + 10, reserve=20
    )
    assert max(len(encode(r.prompt)) for r in cut) <= longest - 10
    row = int(np.argmax(dataset.history_lengths(found.rows)))
    newest = TEXTS[dataset.histories(found.rows[[row]], 1)[0, 0]]
    assert newest in cut[row].prompt.split("The other")[0]


def test_titles_with_braces_stay_as_they_are(dataset):
    texts = ['A {title} "B"', *TEXTS[1:]]
    found = draw_decisions(dataset, texts, share=1.0)
    prompts = [r.prompt for r in decision_requests(dataset, found, texts, Explaining())]
    assert any('A {title} "B"' in prompt for prompt in prompts)


def test_unknown_domain_and_the_two_sentences():
    with pytest.raises(ConfigError, match="domain"):
        Explaining("cars")
    assert decision_sentence("Up", True) != decision_sentence("Up", False)
    assert "Up" in decision_sentence("Up", False)


def test_without_timestamps_a_refused_item_stands_at_an_earlier_step():
    from shop import ITEMS, ring_dataset

    dataset = replace(ring_dataset(), timestamps=None)
    texts = [f"item {item}" for item in range(ITEMS)]
    found = draw_decisions(dataset, texts, share=1.0, refused=1.0)
    times, train = RowClock.of(dataset).times, dataset.rows("train")
    first = times[found.rows] == times[train].min()
    assert found.labels[first].all()  # nothing precedes them: they are asked about their own item
    for row, item in zip(found.rows[~found.labels], found.items[~found.labels], strict=True):
        assert item in dataset.targets(train[times[train] < times[row]])
