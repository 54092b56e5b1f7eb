from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, DataError, FingerprintError, RunError
from recdistill.export import Recommender, fold
from recdistill.export.best_items import pad_histories
from recdistill.item_encoders import Collaborative, Ids
from recdistill.students import STUDENTS, SequenceModel
from recdistill.types import PAD
from shop import ITEMS, ring_dataset

SPECS = {
    "sasrec": {"embedding_size": 16, "variant": "modern", "max_length": 8},
    "gru4rec": {"embedding_size": 16, "variant": "paper"},
    "caser": {"embedding_size": 16, "variant": "paper", "max_length": 8},
}


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    return ring_dataset()


def model(name: str, *, tied: bool = False, text: bool = True) -> SequenceModel:
    torch.manual_seed(1)
    student = STUDENTS[name](**SPECS[name])
    vectors = torch.randn(ITEMS, 12)
    table = Collaborative(ITEMS, 16, vectors, weight=0.5) if text else Ids(ITEMS, 16)
    output = table if tied else Ids(ITEMS, student.hidden_size)
    made = SequenceModel(student, table, output, bias=not tied)
    if made.item_bias is not None:
        torch.nn.init.normal_(made.item_bias)
    return made


def recommender(dataset: SequenceDataset, name: str = "sasrec", *, tied: bool = False) -> Recommender:
    return Recommender.from_model(
        model(name, tied=tied), dataset, {"student": name, "options": SPECS[name]}, 8
    )


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("tied", [True, False])
def test_folded_logits_equal_unfolded_ones(dataset: SequenceDataset, name: str, tied: bool) -> None:
    if name == "caser" and tied:
        pytest.skip("Caser writes another width than it reads")
    unfolded = model(name, tied=tied).eval()
    history = torch.from_numpy(dataset.histories(dataset.rows("test")[:20], 8))
    torch.testing.assert_close(fold(unfolded).score(history), unfolded.score(history), atol=1e-5, rtol=0)


def test_folding_leaves_the_mode_of_the_model_alone() -> None:
    made = model("sasrec").train()
    assert not fold(made).training
    assert made.training
    assert made.student.training is made.training


@pytest.mark.parametrize("name", sorted(SPECS))
def test_saved_and_loaded_answers_are_the_same(dataset: SequenceDataset, tmp_path: Path, name: str) -> None:
    made = recommender(dataset, name)
    made.save(tmp_path / "rec")
    loaded = Recommender.load(tmp_path / "rec")
    histories = dataset.histories(dataset.rows("test")[:20], 8)
    assert torch.equal(made.scorer()(histories), loaded.scorer()(histories))
    assert {p.suffix for p in (tmp_path / "rec").iterdir()} <= {".safetensors", ".json", ".parquet"}


def test_recommend_by_id_and_title(dataset: SequenceDataset) -> None:
    made = recommender(dataset)
    by_id = made.recommend([["i00", "i01"], ["i09"]], k=5)
    by_title = made.recommend([["Saga 0 part 0", "Saga 0 part 1"], ["Saga 1 part 1"]], k=5)
    assert by_id.equals(by_title)
    assert by_id["history"].to_list() == [0] * 5 + [1] * 5
    assert not set(by_id.filter(by_id["history"] == 0)["item_id"]) & {"i00", "i01"}
    scores = by_id.filter(by_id["history"] == 0)["score"].to_list()
    assert scores == sorted(scores, reverse=True)


def test_recommend_among_candidates_and_with_seen(dataset: SequenceDataset) -> None:
    made = recommender(dataset)
    assert set(made.recommend([["i00"]], k=2, candidates=["i03", "i05"])["item_id"]) == {"i03", "i05"}
    assert "i00" in made.recommend([["i00"]], k=ITEMS, exclude_seen=False)["item_id"].to_list()
    assert made.recommend([["i00"]], k=ITEMS).height == ITEMS - 1
    assert made.recommend([], k=3).height == 0


def test_wrong_requests(dataset: SequenceDataset) -> None:
    made = recommender(dataset)
    with pytest.raises(ConfigError, match="k is 0"):
        made.recommend([["i00"]], k=0)
    with pytest.raises(DataError, match="history 1 is empty"):
        made.recommend([["i00"], []], k=3)
    with pytest.raises(DataError, match="nowhere"):
        made.recommend([["nowhere"]], k=3)


def test_a_long_history_counts_its_newest_items() -> None:
    grid = pad_histories([np.arange(12), np.array([3])], 8)
    np.testing.assert_array_equal(grid, [list(range(4, 12)), [3] + [PAD] * 7])


def test_another_dataset_is_refused(dataset: SequenceDataset) -> None:
    with pytest.raises(FingerprintError, match="was made from dataset"):
        recommender(dataset).evaluate(ring_dataset(seed=5), "test", filter_seen=False)


def test_damaged_folders_are_refused(dataset: SequenceDataset, tmp_path: Path) -> None:
    made = recommender(dataset)
    made.save(tmp_path / "rec")
    path = tmp_path / "rec" / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if "item_encoder" not in k}, path)
    with pytest.raises(RunError, match="damaged"):
        Recommender.load(tmp_path / "rec")
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(RunError, match="damaged"):
        Recommender.load(tmp_path / "rec")
    with pytest.raises(RunError, match="no recommender folder"):
        Recommender.load(tmp_path)
