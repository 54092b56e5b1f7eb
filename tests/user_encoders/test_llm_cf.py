"""LLM-CF in the student: nothing of the future, nothing of the target, off is off, and on acts."""

import numpy as np
import pytest
import torch

from recdistill.data.clock import RowClock
from recdistill.data.interactions import Interactions
from recdistill.data.prepare import prepare
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.export import Recommender, fold
from recdistill.item_encoders import Ids
from recdistill.losses import CE
from recdistill.students import SASRec, SequenceModel
from recdistill.train import TrainOptions, distill
from recdistill.train.batches import BatchLoader
from recdistill.train.distill import describe_task
from recdistill.train.objective import Objective
from recdistill.types import PAD, Batch
from recdistill.user_encoders import Examples, InContextTokens, LlmCf
from recdistill.user_encoders.retrieval import Quota
from references.in_context import naive_examples, naive_history_vector
from shop import ring_dataset

SIZE, LENGTH, ITEMS = 16, 8, 40
STUDENT = {"embedding_size": SIZE, "variant": "modern", "max_length": LENGTH, "dropout": 0.0}
SPEC = {"student": "sasrec", "options": STUDENT}


def timed(split):
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 60, 900))
    frame = {"user_id": users, "item_id": rng.integers(0, ITEMS, 900), "timestamp": rng.integers(0, 200, 900)}
    return prepare(Interactions.from_frame(frame), None, split=split, window=5)


DATASETS = {
    "leave-one-out": lambda: timed("leave-one-out"),
    "global-time": lambda: timed("global-time"),
    "no timestamps": ring_dataset,
}


@pytest.fixture(scope="module", params=DATASETS)
def any_data(request):
    return DATASETS[request.param]()


@pytest.fixture(scope="module")
def data():
    return DATASETS["leave-one-out"]()


def examples_of(data, share=0.3, seed=0):
    """Return examples on a share of the training rows, half of them with another item than the target."""
    rng = np.random.default_rng(seed)
    train = data.rows("train")
    rows = np.sort(rng.choice(train, int(share * len(train)), replace=False))
    labels = rng.random(len(rows)) < 0.5
    items = np.where(labels, data.targets(rows), (data.targets(rows) + 1) % ITEMS)
    return Examples(
        row_ids=data.row_ids[rows],
        items=items,
        labels=labels,
        times=RowClock.of(data).times[rows],
        words=rng.normal(size=(len(rows), 11)).astype(np.float32),
        text=rng.normal(size=(ITEMS, 7)).astype(np.float32),
    )


def encoder(data, **options):
    torch.manual_seed(7)
    made = LlmCf(examples_of(data), data, SIZE, **{"dropout": 0.0, "last_items": 4, **options})
    for parameter in made.parameters():  # far from the start, so that everything acts
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return made


def model(users=None):
    torch.manual_seed(1)
    table = Ids(ITEMS, SIZE, std=0.5)
    return SequenceModel(SASRec(**STUDENT), table, table, bias=False, user_encoder=users)


def objective(data, users, batches="last"):
    made = model(users)
    return Objective(made, CE(), [], describe_task(data, made, None)), next(
        BatchLoader(data, batches, LENGTH, 32).epoch(0)
    )


def windows(data, split="test"):
    rows = data.rows(split)
    return rows, torch.from_numpy(data.histories(rows, LENGTH)), torch.from_numpy(data.row_ids[rows])


def test_no_row_is_shown_itself_or_anything_of_its_time_or_later(any_data):
    data = any_data
    examples, made = examples_of(data), encoder(data)
    clock = RowClock.of(data)
    shown = made.shown.numpy()
    rows, places = np.nonzero(shown != PAD)
    chosen = data.positions_of(examples.row_ids[shown[rows, places]])
    assert len(rows) > len(shown)
    assert (clock.times[chosen] < clock.times[rows]).all()
    assert (chosen != rows).all()
    same = data.row_sequences[chosen] == data.row_sequences[rows]
    assert same.any()
    assert (data.row_events[chosen] < data.row_events[rows])[same].all()  # an own example is an own past one
    if data.timestamps is not None:
        events = data.row_events
        assert (data.timestamps[events[chosen]] < data.timestamps[events[rows]]).all()
    train = np.isin(rows, data.rows("train"))
    assert train.any()
    assert (~train).any()


def test_the_lists_are_brute_force(any_data):
    data = any_data
    examples, made = examples_of(data), encoder(data, chosen=2, refused=1)
    text = examples.text / np.linalg.norm(examples.text, axis=1, keepdims=True)
    vector = {}
    for row in range(len(data.row_ids)):
        vector[row] = naive_history_vector(text, data.histories(np.array([row]), 4)[0])
    asked = [int(row) for row in data.positions_of(examples.row_ids)]
    naive = naive_examples(
        np.array([vector[row] for row in range(len(data.row_ids))]),
        np.array([vector[row] for row in asked]),
        examples.labels,
        examples.times,
        RowClock.of(data).times.tolist(),
        2,
        1,
    )
    times, similar = RowClock.of(data).times, np.array([vector[row] for row in asked])
    for row, best in enumerate(naive):  # equal histories are equally similar: values are compared, not names
        found = made.shown[row][made.shown[row] != PAD].tolist()
        assert len(set(found)) == len(best)
        for label in (True, False):
            values = [
                sorted(float(vector[row] @ similar[e]) for e in some if examples.labels[e] == label)
                for some in (found, best)
            ]
            assert values[0] == pytest.approx(values[1], abs=1e-5), (row, times[row])
    assert made.quota == Quota(2, 1)


def test_a_later_event_changes_nothing_that_came_before(any_data):
    """Another item, at the end of a sequence, leaves every earlier row's examples and scores as they were."""
    data = any_data
    from dataclasses import replace

    user = int(np.argmax(np.diff(data.offsets)))
    last = int(data.offsets[user + 1]) - 1
    events = data.events.copy()
    events[last] = (events[last] + 1) % ITEMS
    changed = replace(data, events=events)
    before, after = model(encoder(data)).eval(), model(encoder(changed)).eval()
    rows = np.flatnonzero((data.row_events < last) | (data.row_sequences != user))
    history, ids = torch.from_numpy(data.histories(rows, LENGTH)), torch.from_numpy(data.row_ids[rows])
    examples = data.positions_of(examples_of(data).row_ids)
    if not (
        data.row_events[examples] == last
    ).any():  # else its own example has another target, for later rows
        assert torch.equal(before.score(history, ids), after.score(history, ids))
    else:
        clock = RowClock.of(data).times
        earlier = torch.from_numpy(clock[rows] <= clock[data.row_events == last][0])
        assert torch.equal(before.score(history, ids)[earlier], after.score(history, ids)[earlier])


def test_the_target_plays_no_part(data):
    told = model(encoder(data)).eval()
    batch = next(BatchLoader(data, "last", LENGTH, 32).epoch(0))
    other = Batch(batch.history, batch.lengths, batch.positions, (batch.targets + 3) % ITEMS, batch.row_ids)
    assert torch.equal(told(batch).hidden, told(other).hidden)


def test_weight_zero_and_no_example_are_the_plain_student(data):
    rows, history, ids = windows(data, "train")
    plain, off = model().eval(), model(encoder(data, weight=0.0)).eval()
    torch.testing.assert_close(off.score(history, ids), plain.score(history), atol=1e-6, rtol=0)
    on = model(encoder(data)).eval()
    none = (on.user_encoder.shown[torch.from_numpy(rows)] == PAD).all(1)
    assert none.any()
    assert torch.equal(on.score(history, ids)[none], plain.score(history)[none])
    moved = (on.score(history, ids)[~none] - plain.score(history)[~none]).abs().amax(1)
    assert (moved > 1e-4).all()


def test_an_unknown_row_is_the_plain_student_and_a_stranger_is_not(data):
    plain, on = model().eval(), model(encoder(data)).eval()
    _, history, ids = windows(data)
    assert torch.equal(on.score(history, torch.full_like(ids, 10**9)), plain.score(history))
    assert (on.score(history) - plain.score(history)).abs().max() > 1e-3


@pytest.mark.parametrize("batches", ["last", "all"])
def test_gradients_reach_every_part(data, batches):
    made, batch = objective(data, encoder(data), batches)
    total, terms = made(batch)
    assert made.names == ["loss", "llmcf"]
    assert len(terms) == 2
    total.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert "user_encoder" in " ".join(name for name, _ in made.named_parameters())


def test_alpha_zero_leaves_the_reconstruction_alone(data):
    made, batch = objective(data, encoder(data, alpha=0.0))
    total, terms = made(batch)
    assert made.names == ["loss"]
    assert len(terms) == 1
    total.backward()
    assert all(p.grad is None or not p.grad.any() for p in made.model.user_encoder.recall.parameters())
    assert made.model.user_encoder.decoder.blocks[0].output.weight.grad.any()


def test_the_term_is_the_naive_cosine_and_training_lowers_it(data):
    made, batch = objective(data, encoder(data, alpha=0.5))
    users = made.model.user_encoder
    total, terms = made(batch)
    states = users.states(users.shown_to(batch.row_ids, _newest(batch)), _newest(batch))
    shown = users.shown_to(batch.row_ids, _newest(batch))
    cosines = []
    for row in range(len(shown)):
        for place in range(shown.shape[1]):
            if shown[row, place] != PAD:
                told, words = users.recall(states[row, place]), users.words[shown[row, place]]
                cosines.append(float((told @ words / told.norm() / words.norm()).detach()))
    parts = [float(term.detach()) for term in terms]
    assert parts[1] == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5)
    assert float(total.detach()) == pytest.approx(parts[0] + 0.5 * parts[1], abs=1e-6)
    first = parts[1]
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        total, terms = made(batch)
        total.backward()
        optimizer.step()
    assert float(terms[1].detach()) < first - 0.2


def _newest(batch):
    from recdistill.user_encoders.retrieval import newest_items

    return newest_items(batch.history, batch.lengths, batch.positions, 4)


def test_the_term_does_not_touch_the_student(data):
    made, batch = objective(data, encoder(data))
    made.model(batch)
    made.model.user_encoder.term().backward()
    student = [*made.model.student.parameters(), *made.model.item_encoder.parameters()]
    assert all(p.grad is None for p in student)


def test_whole_sequences_give_each_position_what_it_gets_alone(data):
    told = model(encoder(data)).eval()
    batch = next(BatchLoader(data, "all", LENGTH, 16).epoch(0))
    rows = data.positions_of(batch.row_ids.numpy())
    users = told.user_encoder
    hidden = torch.randn(len(rows), SIZE)
    together = users(hidden, batch.row_ids, batch.history, batch.lengths, batch.positions)
    alone = torch.from_numpy(data.histories(rows, LENGTH))
    apart = users(hidden, batch.row_ids, alone, (alone != PAD).sum(1), None)
    whole = torch.from_numpy(data.history_lengths(rows)) <= batch.positions % batch.history.shape[1] + 1
    assert whole.sum() > 10  # a piece that is cut off at its start tells less of the history
    torch.testing.assert_close(together[whole], apart[whole], atol=1e-5, rtol=1e-5)


def test_folded_saved_and_loaded_models_answer_alike_for_rows_and_for_strangers(data, tmp_path):
    told = model(encoder(data)).eval()
    rows, history, ids = windows(data)
    known, strange = told.score(history, ids), told.score(history)
    Recommender.from_model(told, data, SPEC, LENGTH).save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    assert isinstance(loaded.model.user_encoder, InContextTokens)
    for made in (fold(told), fold(fold(told)), loaded.model):
        torch.testing.assert_close(made.score(history, ids), known, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.score(history), strange, atol=1e-5, rtol=1e-5)
    found = loaded.evaluate(data, "test", filter_seen=False).ranks
    assert found.tolist() == [
        int((row >= row[t]).sum()) - 1 for row, t in zip(known, data.targets(rows), strict=True)
    ]
    names = [[data.catalogue.raw_ids[item] for item in row[row != PAD]] for row in history[:5]]
    best = loaded.recommend(names, 3, exclude_seen=False)["item_id"].to_list()
    assert best == [data.catalogue.raw_ids[item] for row in strange[:5] for item in row.topk(3).indices]
    again = loaded.recommend(names, 3, exclude_seen=False, users=["3", None, "x", "0", "1"])[
        "item_id"
    ].to_list()
    assert again == best  # a request is answered by its history, whoever asks


def test_a_request_now_gets_what_a_row_after_all_examples_gets():
    data = timed("global-time")
    told = model(encoder(data)).eval()
    users = told.user_encoder
    rows = data.rows("test")
    late = rows[RowClock.of(data).times[rows] > int(users.times.max())]
    assert len(late) > 20
    history, ids = torch.from_numpy(data.histories(late, LENGTH)), torch.from_numpy(data.row_ids[late])
    torch.testing.assert_close(told.score(history, ids), told.score(history), atol=1e-5, rtol=1e-5)


class StopOnce:
    """Interrupts a run in the middle of its second epoch."""

    def on_step(self, epoch, step, steps, loss):
        if (epoch, step) == (1, 2):
            raise KeyboardInterrupt

    def on_epoch(self, record):
        pass


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(data, tmp_path):
    def run(folder, reporter=None):
        made = model(encoder(data, dropout=0.1))
        options = TrainOptions(epochs=3, seed=3)
        rest = {"length": LENGTH, "batch_size": 64, "reporter": reporter}
        distill(data, made, CE(), out=folder, spec=SPEC, options=options, **rest)

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", StopOnce())
    run(tmp_path / "broken")
    _, history, ids = windows(data)
    whole, broken = (
        Recommender.load(tmp_path / name).model.score(history, ids) for name in ("whole", "broken")
    )
    assert torch.equal(whole, broken)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert all('"llmcf"' in line for line in lines)


@pytest.mark.parametrize(
    "wrong", [{"alpha": -1.0}, {"heads": 5}, {"id_size": 0}, {"last_items": 0}, {"chosen": -1}]
)
def test_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        encoder(ring_dataset(), **wrong)


def test_examples_of_another_time_are_refused():
    from dataclasses import replace

    data = ring_dataset()
    examples = examples_of(data)
    with pytest.raises(KnowledgeError, match="other times"):
        LlmCf(replace(examples, times=examples.times + 1), data, SIZE)
