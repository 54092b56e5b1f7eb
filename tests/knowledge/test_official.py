import dataclasses

import numpy as np
import pytest
import torch

from recdistill.errors import FingerprintError, KnowledgeError, RunError
from recdistill.knowledge import Knowledge, export_official, import_official

NAMES = {"all_embeddings.pt", "myrank_train.txt", "confidence_train.txt"}


@pytest.fixture
def train(dataset):
    return dataset.row_ids[dataset.rows("train")]


@pytest.fixture
def files(dataset, knowledge, tmp_path):
    export_official(knowledge, tmp_path / "files", dataset)
    return tmp_path / "files"


def rewrite(files, name, change):
    np.savetxt(files / name, change(np.loadtxt(files / name)), fmt="%.9g")


def test_the_files_are_what_the_authors_code_reads(dataset, knowledge, files, train):
    assert {path.name for path in files.iterdir()} == NAMES
    vectors = torch.load(files / "all_embeddings.pt", weights_only=True)
    assert vectors.dtype == torch.float32
    assert vectors.shape == (dataset.item_count, 8)
    ranking, said = np.loadtxt(files / "myrank_train.txt"), knowledge.rows_for(train)
    assert np.array_equal(ranking, said.ranking)
    distance = np.loadtxt(files / "confidence_train.txt").astype(np.float32)
    assert np.array_equal(distance, said.ranking_distance)


def test_export_and_import_agree(dataset, knowledge, files, train):
    back = import_official(files, dataset, metric="squared_l2")
    assert back.row_ids.tolist() == train.tolist()
    for name in ("ranking", "ranking_distance"):
        assert torch.equal(getattr(back.rows_for(train), name), getattr(knowledge.rows_for(train), name))
    np.testing.assert_array_equal(back.item_embeddings, knowledge.item_embeddings)
    assert set(back.fields) == {"ranking", "ranking_distance", "item_embeddings"}
    assert back.manifest["metric"] == "squared_l2"
    assert back.manifest["dataset_fingerprint"] == dataset.fingerprint


@pytest.mark.parametrize("scaling", ["row", "all"])
def test_min_max(dataset, knowledge, tmp_path, train, scaling):
    export_official(knowledge, tmp_path / "f", dataset, k=3, scaling=scaling)
    written = np.loadtxt(tmp_path / "f" / "confidence_train.txt")
    distance = knowledge.top(3).rows_for(train).ranking_distance.double().numpy()
    low, high = (distance.min(1), distance.max(1)) if scaling == "row" else (distance.min(), distance.max())
    expected = (distance.T - low) / (high - low)
    np.testing.assert_allclose(written, expected.T, atol=1e-6)
    assert written.min() == 0
    assert written.max() == 1


def test_equal_distances_scale_to_zero(dataset, knowledge, tmp_path):
    flat = dataclasses.replace(knowledge, ranking_distance=np.full_like(knowledge.ranking_distance, 3))
    export_official(flat, tmp_path / "f", dataset, scaling="row")
    assert not np.loadtxt(tmp_path / "f" / "confidence_train.txt").any()


def test_float16_vectors(dataset, knowledge, files):
    half = knowledge.item_table.half()
    torch.save(half, files / "all_embeddings.pt")
    back = import_official(files, dataset)
    assert back.item_embeddings.dtype == np.float16
    assert torch.equal(back.item_table, half.float())
    torch.save(half.bfloat16(), files / "all_embeddings.pt")
    assert import_official(files, dataset).item_embeddings.dtype == np.float32


def test_numbers_as_numpy_writes_them_by_default(dataset, files):
    ranking = np.loadtxt(files / "myrank_train.txt")
    np.savetxt(files / "myrank_train.txt", ranking)  # 1.000000000000000000e+00
    assert np.array_equal(import_official(files, dataset).ranking, ranking)


def test_rows_in_another_order_are_joined_by_their_ids(dataset, files, train):
    straight = import_official(files, dataset)
    order = np.random.default_rng(0).permutation(len(train))
    for name in ("myrank_train.txt", "confidence_train.txt"):
        rewrite(files, name, lambda table: table[order])
    np.savetxt(files / "uid_train.txt", train[order], fmt="%d")
    joined = import_official(files, dataset)
    np.testing.assert_array_equal(joined.ranking, straight.ranking)
    np.testing.assert_array_equal(joined.ranking_distance, straight.ranking_distance)
    assert joined.manifest["rows_by"] == "row id"
    (files / "uid_train.txt").rename(files.parent / "ids.txt")
    assert np.array_equal(
        import_official(files, dataset, uid_file=files.parent / "ids.txt").ranking, straight.ranking
    )


def test_a_column_of_row_ids(dataset, files, train):
    straight = import_official(files, dataset)
    for name in ("myrank_train.txt", "confidence_train.txt"):
        rewrite(files, name, lambda table: np.column_stack([train, table])[::-1])
    joined = import_official(files, dataset, uid_column=True)
    np.testing.assert_array_equal(joined.ranking, straight.ranking)


def test_some_rows_by_id(dataset, files, train):
    for name in ("myrank_train.txt", "confidence_train.txt"):
        rewrite(files, name, lambda table: table[5:9])
    np.savetxt(files / "uid_train.txt", train[5:9], fmt="%d")
    assert import_official(files, dataset).row_ids.tolist() == train[5:9].tolist()


def test_files_shuffled_against_each_other(dataset, files, train):
    rewrite(files, "myrank_train.txt", lambda table: np.column_stack([train, table]))
    rewrite(files, "confidence_train.txt", lambda table: np.column_stack([train[::-1], table]))
    with pytest.raises(KnowledgeError, match=r"rows are shuffled: .* differ from line 1 on"):
        import_official(files, dataset, uid_column=True)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_file_is_named(dataset, files, name):
    (files / name).unlink()
    with pytest.raises(KnowledgeError, match=f"{name} does not exist. The folder must hold"):
        import_official(files, dataset)


def test_a_rank_matrix_is_refused(dataset, files, train):
    distance = np.random.default_rng(0).random((len(train), dataset.item_count))
    np.savetxt(files / "myrank_train.txt", np.argsort(np.argsort(distance, axis=1), axis=1)[:, :10], fmt="%d")
    np.savetxt(files / "confidence_train.txt", distance[:, :10])
    with pytest.raises(KnowledgeError, match="rank of every item, not a list"):
        import_official(files, dataset)


def test_wrong_counts_are_refused(dataset, knowledge, files, train):
    for rows in (len(train) - 1, len(dataset.row_ids)):
        for name in ("myrank_train.txt", "confidence_train.txt"):
            rewrite(files, name, lambda table, rows=rows: np.resize(table, (rows, table.shape[1])))
        with pytest.raises(KnowledgeError, match=f"has {rows} lines, the dataset {len(train)} training rows"):
            import_official(files, dataset)
    torch.save(torch.ones(dataset.item_count + 1, 8), files / "all_embeddings.pt")
    with pytest.raises(KnowledgeError, match=r"31 rows, the dataset 30 items. The last row .* padding item"):
        import_official(files, dataset)
    torch.save(torch.ones(len(train), 8), files / "all_embeddings.pt")
    with pytest.raises(KnowledgeError, match="not predict_embeddings"):
        import_official(files, dataset)


def test_wrong_values_are_refused(dataset, files):
    good = (files / "myrank_train.txt").read_text()
    for text, message in (
        (good.replace("1", "one", 1), "is no table of numbers"),
        (good + "1 2\n", "is no table of numbers"),
        ("", "is empty"),
        (good.replace(good.split()[0], "30", 1), r"item ids 0\.\.29"),
        (good.replace(good.split()[0], "2.5", 1), "holds 2.5, which is no id"),
    ):
        (files / "myrank_train.txt").write_text(text)
        with pytest.raises(KnowledgeError, match=message):
            import_official(files, dataset)


def test_wrong_row_ids_are_refused(dataset, files, train):
    for ids, message in (
        (train[:-1], "row ids for the"),
        (np.concatenate([train[:1], train[:-1]]), "stands on two lines"),
        (np.concatenate([train[:-1], [1]]), "row id 1 is not in dataset 'ring'"),
    ):
        np.savetxt(files / "uid_train.txt", ids, fmt="%d")
        with pytest.raises(KnowledgeError, match=message):
            import_official(files, dataset)


def test_objects_are_not_unpickled(dataset, files):
    for value, message in (
        ({"vectors": np.ones(3)}, "Only tensors are read"),
        ([1.0, 2.0], "holds list"),
        (torch.ones(30), "holds torch.float32"),
    ):
        torch.save(value, files / "all_embeddings.pt")
        with pytest.raises(KnowledgeError, match=message):
            import_official(files, dataset)
    (files / "all_embeddings.pt").write_bytes(b"nonsense")
    with pytest.raises(KnowledgeError, match="cannot be read as a tensor"):
        import_official(files, dataset)


def test_export_refuses_what_the_authors_code_would_misread(dataset, knowledge, make_ring, tmp_path, train):
    short = knowledge.ranking.copy()
    short[:, -1] = -1
    with pytest.raises(
        KnowledgeError, match=r"shortest list of a training row has 5 items, 6 are wanted.*--k 5"
    ):
        export_official(dataclasses.replace(knowledge, ranking=short), tmp_path / "f", dataset)
    with pytest.raises(KnowledgeError, match="6 items, 7 are wanted"):
        export_official(knowledge, tmp_path / "f", dataset, k=7)
    with pytest.raises(KnowledgeError, match="no item_embeddings"):
        export_official(dataclasses.replace(knowledge, item_embeddings=None), tmp_path / "f", dataset)
    part = Knowledge(
        knowledge.row_ids[:9],
        30,
        ranking=knowledge.ranking[:9],
        ranking_distance=knowledge.ranking_distance[:9],
        item_embeddings=knowledge.item_embeddings,
        manifest=knowledge.manifest,
    )
    with pytest.raises(KnowledgeError, match="have no knowledge"):
        export_official(part, tmp_path / "f", dataset)
    with pytest.raises(FingerprintError):
        export_official(knowledge, tmp_path / "f", make_ring(seed=9))
    assert not (tmp_path / "f").exists()


def test_export_replaces_only_its_own_files(dataset, knowledge, files):
    with pytest.raises(RunError):
        export_official(knowledge, files, dataset)
    export_official(knowledge, files, dataset, k=2, overwrite=True)
    assert np.loadtxt(files / "myrank_train.txt").shape[1] == 2
    (files / "thesis.tex").write_text("precious")
    with pytest.raises(KnowledgeError, match=r"'thesis.tex'.*not replaced"):
        export_official(knowledge, files, dataset, overwrite=True)
    assert {path.name for path in files.iterdir()} == {*NAMES, "thesis.tex"}
