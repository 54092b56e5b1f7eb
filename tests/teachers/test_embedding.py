import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from recdistill.errors import ConfigError
from recdistill.teachers import base
from recdistill.teachers.embedding import EmbeddingTeacher
from recdistill.teachers.text.item_text import encode_text
from recdistill.teachers.text_query import (
    EmbeddingOptions,
    TextQuery,
    fit,
    newest_first,
    quality,
    sampled_loss,
)
from recdistill.types import PAD

QUICK = EmbeddingOptions(last_items=3, epochs=4, batch_size=32, negatives=0, learning_rate=0.02)


@pytest.fixture(scope="module")
def table(walks):
    return encode_text(walks.catalogue.titles, size=16).whitened(8)


def test_the_query_follows_its_equation():
    torch.manual_seed(0)
    z = torch.randn(6, 4)
    model = TextQuery(z, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        a, (m0, m1, m2), b = model.lag, model.maps, model.bias
        s = model.log_scale.exp()
        full = s * (b + a[0] * z[5] @ m0 + a[1] * z[2] @ m1 + (a[2] * z[0] + a[3] * z[2]) @ m2)
        short = s * (b + a[0] * z[3] @ m0)
        found = model(torch.tensor([[5, 2, 0, 2], [3, PAD, PAD, PAD]]))
    torch.testing.assert_close(found, torch.stack([full, short]))


def test_histories_are_newest_first(make_dataset):
    dataset = make_dataset([[4, 5, 6, 7], [1, 2, 3]])
    rows = np.arange(len(dataset.row_ids))
    assert newest_first(dataset, rows, 2).tolist() == [[4, PAD], [5, 4], [6, 5], [1, PAD], [2, 1]]


def test_the_sampled_loss_estimates_the_whole_one():
    torch.manual_seed(0)
    z = torch.randn(400, 4)
    model = TextQuery(z, 2)
    history, targets = torch.randint(400, (64, 2)), torch.randint(400, (64,))
    whole = cross_entropy(model(history) @ z.T, targets)
    generator = torch.Generator().manual_seed(1)
    torch.testing.assert_close(sampled_loss(model, history, targets, 0, generator), whole)
    draws = [sampled_loss(model, history, targets, 200, generator).item() for _ in range(50)]
    assert np.mean(draws) == pytest.approx(whole.item(), abs=0.05)


def test_training_lowers_the_loss_and_keeps_the_best_epoch(walks, table):
    rows = walks.rows("train", prefixes=True)
    history = torch.from_numpy(newest_first(walks, rows, 3))
    targets = torch.from_numpy(walks.targets(rows))
    z = torch.from_numpy(table)
    before = cross_entropy(TextQuery(z, 3)(history) @ z.T, targets)
    model = fit(walks, z, rows, QUICK)
    assert cross_entropy(model(history) @ z.T, targets) < before - 0.1
    again = fit(walks, z, rows, QUICK)
    torch.testing.assert_close(model.maps, again.maps, rtol=0, atol=0)


def test_scores_are_the_product_of_queries_and_items(walks, table):
    rows, done = base.rows_to_teach(walks), []
    known = EmbeddingTeacher(table, QUICK).teach(walks, rows, top_k=7, progress=done.append)
    known.check(walks.targets(rows))
    assert sum(done) == len(rows)
    assert known.manifest["metric"] == "dot"
    scores = known.query_embeddings.astype(np.float32) @ known.item_embeddings.T
    loss = -torch.from_numpy(scores).log_softmax(1).numpy()
    targets = walks.targets(rows)
    np.testing.assert_allclose(known.target_distance, loss[np.arange(len(rows)), targets], atol=1e-4)
    np.testing.assert_allclose(known.ranking_distance, np.sort(loss, axis=1)[:, :7], atol=1e-4)
    np.testing.assert_allclose(known.score(walks.row_ids[rows]).numpy(), scores, atol=1e-4)


def test_no_row_is_answered_by_a_model_that_saw_its_sequence(walks, table):
    teacher = EmbeddingTeacher(table, QUICK, seed=5)
    folds = teacher.folds(walks)
    assert sorted(np.bincount(folds)) == [13, 13, 14]
    train, test = walks.rows("train", prefixes=True), walks.rows("test")
    rows = base.rows_to_teach(walks)
    queries = dict(zip(rows.tolist(), teacher.queries(walks, rows), strict=True))
    total = np.zeros((len(test), table.shape[1]))
    for fold in range(3):
        inside = folds[walks.row_sequences[train]] == fold
        model = fit(walks, torch.from_numpy(table), train[~inside], QUICK, seed=5 + fold)

        def ask(some, model=model):
            return model(torch.from_numpy(newest_first(walks, some, 3))).detach().numpy()

        expected = np.stack([queries[row] for row in train[inside].tolist()])
        np.testing.assert_allclose(expected, ask(train[inside]), atol=1e-5)
        total += ask(test) / 3
    np.testing.assert_allclose(np.stack([queries[row] for row in test.tolist()]), total, atol=1e-5)


def test_text_helps_on_held_out_rows(walks, table):
    known = EmbeddingTeacher(table, QUICK).teach(walks, walks.rows("test"))
    assert (known.target_rank < 5).mean() > 1.5 * 5 / 24


def test_it_is_never_worse_on_validation_than_untrained(walks, table):
    z, rows = torch.from_numpy(table), walks.rows("train", prefixes=True)
    wild = EmbeddingOptions(last_items=3, epochs=3, batch_size=32, negatives=0, learning_rate=5.0)
    valid = walks.rows("valid")
    start = quality(TextQuery(z, 3), walks, valid)
    model = fit(walks, z, rows, wild)
    assert quality(model, walks, valid) > start - 1e-3  # ties turn with the scale
    assert 0 < model.log_scale.exp() < 1e3


def test_the_scale_is_where_validation_is_likeliest(walks, table):
    model = fit(walks, torch.from_numpy(table), walks.rows("train", prefixes=True), QUICK)
    valid = walks.rows("valid")
    history, targets = torch.from_numpy(newest_first(walks, valid, 3)), torch.from_numpy(walks.targets(valid))
    with torch.no_grad():
        scores = model(history) @ model.table.T
    losses = [cross_entropy(scores * factor, targets).item() for factor in (0.5, 0.8, 1.0, 1.25, 2.0)]
    assert losses[2] == min(losses)


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"epochs": 0}, {"last_items": 0}, {"negatives": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        EmbeddingOptions(**wrong)
