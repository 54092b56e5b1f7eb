"""What is known of a row's user reaches the scores by its row id, from training to the saved recommender."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.evaluate import Evaluation, session_difficulty, target_ranks
from recdistill.export import Recommender, fold
from recdistill.export.as_teacher import knowledge_of
from recdistill.item_encoders import Ids
from recdistill.losses import CE
from recdistill.students import SASRec, SequenceModel
from recdistill.train import TrainOptions, distill
from recdistill.train.distill import validation
from recdistill.user_encoders import KnownRows, UserEncoder, UserVectors
from shop import ITEMS, ring_dataset

SIZE, LENGTH = 16, 8
OPTIONS = {"embedding_size": SIZE, "variant": "modern", "max_length": LENGTH, "dropout": 0.0}
SPEC = {"student": "sasrec", "options": OPTIONS}


class Shift(UserEncoder):
    """Adds a learned map of each row's vector."""

    def __init__(self, known, vectors):
        super().__init__(known, vectors)
        self.map = nn.Linear(vectors.shape[1], SIZE, bias=False)

    def forward(self, hidden, row_ids, history, lengths, positions):
        at = self.locate(row_ids)
        added = self.map(self.vectors[at.clamp_min(0)])
        return torch.where((at >= 0).unsqueeze(1), hidden + added, hidden)

    def fold(self):
        return UserVectors(self.known(), self.map(self.vectors))


@pytest.fixture(scope="module")
def data():
    return ring_dataset()


def encoder(data, share=2):
    """Know something of every `share`-th row; all rows of a user share one vector."""
    row_ids = data.row_ids[::share]
    places = data.row_sequences[::share]
    torch.manual_seed(3)
    return Shift(KnownRows.of(data, row_ids, places), torch.randn(len(data.offsets) - 1, 5))


def model(users=None, *, tied=True):
    torch.manual_seed(1)
    table = Ids(ITEMS, SIZE, std=0.5)
    output = table if tied else Ids(ITEMS, SIZE, std=0.5)
    return SequenceModel(SASRec(**OPTIONS), table, output, bias=not tied, user_encoder=users)


def windows(data, split="test"):
    rows = data.rows(split)
    return rows, torch.from_numpy(data.histories(rows, LENGTH)), torch.from_numpy(data.row_ids[rows])


def test_rows_are_found_by_id_and_strangers_are_not(data):
    made = encoder(data, share=3)
    asked = torch.tensor([int(data.row_ids[3]), int(data.row_ids[4]), -1, 10**9, int(data.row_ids[0])])
    expected = [int(data.row_sequences[3]), -1, -1, -1, int(data.row_sequences[0])]
    assert made.locate(asked).tolist() == expected


def test_the_newest_row_of_a_user_is_the_one_with_the_latest_target(data):
    made = encoder(data)
    for user in (0, 5, 17):
        mine = np.flatnonzero((data.row_sequences == user) & (np.arange(len(data.row_ids)) % 2 == 0))
        newest = mine[np.argmax(data.row_events[mine])]
        assert made.rows_of([user]).tolist() == [data.row_ids[newest]]
    assert made.rows_of([10**6, -1]).tolist() == [-1, -1]


def test_known_rows_change_and_unknown_rows_keep_the_plain_scores_exactly(data):
    plain, told = model().eval(), model(encoder(data)).eval()
    rows, history, ids = windows(data)
    known = told.user_encoder.locate(ids) >= 0
    assert 0 < int(known.sum()) < len(rows)
    before, after = plain.score(history), told.score(history, ids)
    assert torch.equal(before[~known], after[~known])
    assert not torch.isclose(before[known], after[known]).all(1).any()
    assert torch.equal(before, told.score(history))
    assert torch.equal(before, told.score(history, torch.full_like(ids, -1)))


def test_a_batch_of_whole_sequences_gives_every_position_its_own_row(data):
    from recdistill.train.batches import BatchLoader

    told = model(encoder(data)).eval()
    batch = next(BatchLoader(data, "all", LENGTH, 16).epoch(0))
    hidden = told(batch).hidden
    rows = data.positions_of(batch.row_ids.numpy())
    alone = told.encode(
        torch.from_numpy(data.histories(rows, LENGTH)),
        torch.from_numpy(np.minimum(data.history_lengths(rows), LENGTH)),
        row_ids=batch.row_ids,
    )
    short = data.history_lengths(rows) <= LENGTH
    begins = torch.from_numpy(short)  # a piece cut off at its start has other positions
    whole = (batch.history != -1).sum(1)[batch.positions // batch.history.shape[1]]
    same = begins & (whole < LENGTH)
    assert same.sum() > 10
    torch.testing.assert_close(hidden[same], alone[same], atol=1e-5, rtol=1e-5)


def test_the_gradient_reaches_what_the_user_encoder_learns(data):
    from recdistill.train.batches import BatchLoader

    told = model(encoder(data))
    batch = next(BatchLoader(data, "last", LENGTH, 16).epoch(0))
    nn.functional.cross_entropy(told(batch).logits, batch.targets).backward()
    assert told.user_encoder.map.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_folded_saved_and_loaded_models_answer_alike(data, tmp_path, tied):
    told = model(encoder(data), tied=tied).eval()
    rows, history, ids = windows(data)
    expected = told.score(history, ids)
    torch.testing.assert_close(fold(told).score(history, ids), expected, atol=1e-5, rtol=1e-5)
    Recommender.from_model(told, data, SPEC, LENGTH).save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    torch.testing.assert_close(loaded.model.score(history, ids), expected, atol=1e-5, rtol=1e-5)
    assert isinstance(loaded.model.user_encoder, UserVectors)
    found = loaded.evaluate(data, "test", filter_seen=False).ranks
    naive = [int((row >= row[t]).sum()) - 1 for row, t in zip(expected, data.targets(rows), strict=True)]
    assert found.tolist() == naive


def test_a_mixing_matrix_is_saved_as_well(data, tmp_path):
    torch.manual_seed(0)
    known = KnownRows.of(data, data.row_ids, data.row_sequences)
    users = UserVectors(known, torch.randn(len(data.offsets) - 1, SIZE), torch.randn(SIZE, SIZE))
    told = model(users).eval()
    _, history, ids = windows(data)
    hidden = told.encode(history, (history != -1).sum(1))
    expected = torch.stack(
        [
            users.mixing @ h + users.vectors[int(data.row_sequences[data.positions_of([int(r)])[0]])]
            for h, r in zip(hidden, ids, strict=True)
        ]
    )
    torch.testing.assert_close(told.encode(history, (history != -1).sum(1), row_ids=ids), expected)
    Recommender.from_model(told, data, SPEC, LENGTH).save(tmp_path / "r")
    torch.testing.assert_close(
        Recommender.load(tmp_path / "r").model.score(history, ids), told.score(history, ids)
    )


def test_everything_that_ranks_rows_passes_their_ids(data):
    told = Recommender.from_model(model(encoder(data)).eval(), data, SPEC, LENGTH)
    rows, history, ids = windows(data, "valid")
    scores = told.model.score(history, ids)
    ranks = target_ranks(told.scorer(), data, rows, length=LENGTH).kept
    targets = torch.from_numpy(data.targets(rows))
    assert ranks.tolist() == ((scores >= scores.gather(1, targets[:, None])).sum(1) - 1).tolist()
    asked = Evaluation("x", "valid", data.row_ids[data.rows("valid")], ranks, data.item_count, False)
    found = validation(told.model, data, LENGTH, filter_seen=False)
    assert found[True] == asked.metrics((1, 10, 20))
    taught = knowledge_of([told], data, rows, top_k=5)
    assert taught.ranking[:, 0].tolist() == scores.argmax(1).tolist()
    hard = session_difficulty(told.scorer(), data, rows, length=LENGTH)
    first = history[0][history[0] >= 0]
    assert hard[0] == pytest.approx(-float(torch.sigmoid(scores[0][first].double()).mean()), rel=1e-5)


def test_a_plain_function_still_sees_histories_alone(data):
    seen = []

    def scorer(histories):
        seen.append(histories.shape)
        return np.zeros((len(histories), ITEMS), np.float32)

    target_ranks(scorer, data, data.rows("test"), length=4)
    assert seen


def test_recommendations_for_a_known_user_use_the_newest_vector(data, tmp_path):
    told = Recommender.from_model(model(encoder(data)).eval(), data, SPEC, LENGTH)
    user = int(data.row_sequences[0])
    newest = int(told.model.user_encoder.rows_of([user])[0])
    history = [["i00", "i05"]]
    known = told.recommend(history, 3, users=[str(user)], exclude_seen=False)
    scores = told.model.score(torch.tensor([[0, 5]]), torch.tensor([newest]))[0]
    assert known["item_id"].to_list() == [f"i{i:02d}" for i in scores.topk(3).indices.tolist()]
    plain = told.recommend(history, 3, exclude_seen=False)
    for stranger in (None, "nobody", "99999", "9" * 30):
        assert told.recommend(history, 3, users=[stranger], exclude_seen=False).equals(plain)
    assert not known["score"].equals(plain["score"])
    with pytest.raises(ConfigError, match="2 users for 1 histories"):
        told.recommend(history, 3, users=["1", "2"])

    from recdistill.cli.main import app

    told.save(tmp_path / "r")
    said = CliRunner().invoke(
        app,
        [
            "recommend",
            str(tmp_path / "r"),
            "--history",
            "i00",
            "i05",
            "--user",
            str(user),
            "--json",
            "--keep-seen",
        ],
    )
    assert said.exit_code == 0, said.output
    assert pl.read_ndjson(said.output.encode())["item_id"].to_list()[:3] == known["item_id"].to_list()


def test_training_keeps_what_is_known_and_a_plain_run_is_untouched(data, tmp_path):
    options = TrainOptions(epochs=2, seed=0)
    found = {}
    for name, users in (("plain", None), ("told", encoder(data))):
        made = distill(
            data,
            model(users),
            CE(),
            out=tmp_path / name,
            spec=SPEC,
            options=options,
            length=LENGTH,
            batch_size=32,
        )
        found[name] = made.evaluate(data, "valid", filter_seen=False).ranks
    assert Recommender.load(tmp_path / "plain").model.user_encoder is None
    assert Recommender.load(tmp_path / "told").model.user_encoder is not None
    assert found["plain"].tolist() != found["told"].tolist()


def test_an_index_that_does_not_fit_is_refused(data):
    with pytest.raises(KnowledgeError, match="not ascending"):
        KnownRows(np.array([2, 1]), np.array([0, 0]), np.array([0]), np.array([2]))
    with pytest.raises(KnowledgeError, match="number 9"):
        Shift(KnownRows.of(data, data.row_ids[:1], [9]), torch.zeros(3, 5))
