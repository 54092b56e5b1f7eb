from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data import Catalogue, SequenceDataset
from recdistill.errors import ConfigError, DataError
from recdistill.train import BatchLoader
from recdistill.types import PAD
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    return ring_dataset()


@pytest.mark.parametrize("supervision", ["last", "all"])
@pytest.mark.parametrize("length", [3, 5, 50])
def test_an_epoch_sees_every_training_row_once(
    dataset: SequenceDataset, supervision: str, length: int
) -> None:
    loader = BatchLoader(dataset, supervision, length, batch_size=7)  # type: ignore[arg-type]
    seen = np.concatenate([batch.row_ids.numpy() for batch in loader.epoch(0)])
    expected = dataset.row_ids[dataset.rows("train", prefixes=supervision == "all")]
    np.testing.assert_array_equal(np.sort(seen), expected)


@pytest.mark.parametrize("supervision", ["last", "all"])
def test_each_row_asks_for_its_own_target_after_its_own_history(
    dataset: SequenceDataset, supervision: str
) -> None:
    loader = BatchLoader(dataset, supervision, 5, batch_size=16)  # type: ignore[arg-type]
    for batch in loader.epoch(3):
        rows = dataset.positions_of(batch.row_ids.numpy())
        np.testing.assert_array_equal(batch.targets.numpy(), dataset.targets(rows))
        positions = (
            (torch.arange(len(batch.lengths)) * batch.history.shape[1] + batch.lengths - 1)
            if batch.positions is None
            else batch.positions
        )
        newest = batch.history.flatten()[positions].numpy()
        np.testing.assert_array_equal(newest, dataset.events[dataset.row_events[rows] - 1])


def test_whole_sequences_never_show_an_event_of_validation_or_test(dataset: SequenceDataset) -> None:
    batch = next(iter(BatchLoader(dataset, "all", 50, batch_size=1000).epoch(0)))
    users = len(dataset.offsets) - 1  # input leaves out each user's last train event, validation and test
    assert int((batch.history != PAD).sum()) == len(dataset.events) - 3 * users
    held_out = dataset.row_ids[np.concatenate([dataset.rows("valid"), dataset.rows("test")])]
    assert not set(held_out) & set(batch.row_ids.tolist())


def test_batches_depend_on_seed_epoch_and_step_only(dataset: SequenceDataset) -> None:
    loader = BatchLoader(dataset, "last", 5, batch_size=16, seed=1, negatives=2)
    whole = list(loader.epoch(2))
    rest = list(loader.epoch(2, skip=3))
    assert len(rest) == len(whole) - 3
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.history, b.history)
        assert a.negatives is not None
        assert b.negatives is not None
        assert torch.equal(a.negatives, b.negatives)
    other = next(iter(loader.epoch(3)))
    assert not torch.equal(other.row_ids, whole[0].row_ids)


def test_processes_share_a_batch(dataset: SequenceDataset) -> None:
    whole = next(iter(BatchLoader(dataset, "last", 5, batch_size=16).epoch(0)))
    parts = [next(iter(BatchLoader(dataset, "last", 5, 16, process=p, processes=2).epoch(0))) for p in (0, 1)]
    together = torch.cat([part.row_ids for part in parts]).sort().values
    assert torch.equal(together, whole.row_ids.sort().values)


def test_negatives_are_not_the_target_nor_in_the_history(dataset: SequenceDataset) -> None:
    loader = BatchLoader(dataset, "last", 5, batch_size=64, negatives=8)
    for batch in loader.epoch(0):
        assert batch.negatives is not None
        assert int(batch.negatives.min()) >= 0
        assert int(batch.negatives.max()) < ITEMS
        assert not (batch.negatives == batch.targets[:, None]).any()
        assert not (batch.negatives[:, :, None] == batch.history[:, None, :]).any()


def test_wrong_supervision_and_no_rows(dataset: SequenceDataset) -> None:
    with pytest.raises(ConfigError, match="Allowed: last, all"):
        BatchLoader(dataset, "some", 5, 8)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no training row"):
        BatchLoader(dataset, "last", 5, 8, row_ids=np.zeros(0, dtype=np.int64))


def test_negatives_come_from_the_given_items_alone(dataset: SequenceDataset) -> None:
    frame = pl.DataFrame({"item_id": [f"j{k:02d}" for k in range(2 * ITEMS)], "title": ["?"] * 2 * ITEMS})
    spread = replace(dataset, catalogue=Catalogue(frame), events=2 * dataset.events)  # odd items: never seen
    loader = BatchLoader(spread, "last", 5, batch_size=64, negatives=8, drawn_from=np.arange(0, 2 * ITEMS, 2))
    for batch in loader.epoch(0):
        assert batch.negatives is not None
        assert not (batch.negatives % 2).any()
        assert len(batch.negatives.unique()) > ITEMS // 2
        assert not (batch.negatives == batch.targets[:, None]).any()
        assert not (batch.negatives[:, :, None] == batch.history[:, None, :]).any()
