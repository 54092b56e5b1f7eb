import numpy as np
import pytest
import torch

from recdistill.errors import KnowledgeError
from recdistill.knowledge import load_knowledge, save_knowledge
from recdistill.teachers.precomputed import precomputed


@pytest.fixture
def files(walks, tmp_path):
    """The authors' three files, written as their README's snippets would with the right variables."""
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(walks.item_count, 5)))
    queries = torch.from_numpy(rng.normal(size=(len(walks.rows("train")), 5)))
    nearest = torch.cdist(queries, vectors, p=2).topk(10, largest=False)
    torch.save(vectors.half(), folder / "all_embeddings.pt")
    np.savetxt(folder / "myrank_train.txt", nearest.indices.numpy(), fmt="%d")
    np.savetxt(folder / "confidence_train.txt", nearest.values.numpy())
    return folder


def test_files_become_knowledge_of_all_training_rows(walks, files, tmp_path):
    knowledge = precomputed(files, walks)
    train = walks.row_ids[walks.rows("train")]
    assert knowledge.coverage(train) == 1
    assert knowledge.coverage(walks.row_ids[walks.rows("test")]) == 0
    lists = np.loadtxt(files / "myrank_train.txt")
    assert np.array_equal(knowledge.rows_for(train[::-1].copy()).ranking, lists[::-1])
    save_knowledge(knowledge, tmp_path / "k")
    assert load_knowledge(tmp_path / "k", walks, check=True).manifest["teacher"] == "precomputed"


def test_the_distances_are_read_as_the_metric_given(walks, files):
    assert precomputed(files, walks).manifest["metric"] == "l2"
    assert precomputed(files, walks, metric="squared_l2").manifest["metric"] == "squared_l2"


def test_row_ids_join(walks, files):
    straight = precomputed(files, walks)
    train = walks.row_ids[walks.rows("train")]
    np.savetxt(files / "uid_train.txt", train[::-1], fmt="%d")
    turned = precomputed(files, walks)
    assert np.array_equal(turned.ranking, straight.ranking[::-1])


def test_a_missing_folder(walks, tmp_path):
    with pytest.raises(KnowledgeError, match=r"nowhere/all_embeddings\.pt does not exist"):
        precomputed(tmp_path / "nowhere", walks)
