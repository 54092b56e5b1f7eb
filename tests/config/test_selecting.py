from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recdistill.config import build_model, resolve, run
from recdistill.config.schema import SelectConfig
from recdistill.config.selecting import select_knowledge, select_rows
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, DataError, FingerprintError, KnowledgeError
from recdistill.evaluate import session_difficulty, target_ranks
from recdistill.export import Recommender
from recdistill.item_encoders import Collaborative, Ids
from recdistill.knowledge import Knowledge, write_row_ids
from recdistill.knowledge.selection import budget_rows, confident, hard_band
from recdistill.students import STUDENTS, SequenceModel
from shop import ITEMS, ring_dataset

OPTIONS = {"embedding_size": 8, "variant": "modern", "max_length": 8}


@pytest.fixture(scope="module")
def data() -> SequenceDataset:
    return ring_dataset()


@pytest.fixture(scope="module")
def known(data: SequenceDataset) -> Knowledge:
    rng = np.random.default_rng(0)
    rows = data.rows("train")[5:]
    return Knowledge(
        row_ids=data.row_ids[rows],
        item_count=ITEMS,
        ranking=np.stack([rng.permutation(ITEMS)[:5] for _ in rows]).astype(np.int32),
        target_distance=rng.random(len(rows)).astype(np.float32),
        target_rank=rng.integers(0, ITEMS, len(rows)).astype(np.int32),
        item_embeddings=rng.normal(size=(ITEMS, 6)).astype(np.float32),
        manifest={"dataset_fingerprint": data.fingerprint},
    )


@pytest.fixture(scope="module")
def student(data: SequenceDataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run") / "best"
    torch.manual_seed(0)
    table = Ids(ITEMS, 8, std=1.0)
    model = SequenceModel(STUDENTS["sasrec"](**OPTIONS), table, table, bias=False)
    Recommender.from_model(model, data, {"student": "sasrec", "options": OPTIONS}, 8).save(folder)
    return str(folder.parent)


def config(*words: str, strategy: str | None = "rd"):
    small = ["student.embedding_size=8", "student.length=8", "train.epochs=1"]
    return resolve({"dataset": "d", "knowledge": "k"}, strategy=strategy, file=None, words=[*small, *words])


def test_each_way_is_its_function(data, known, student):
    rows = data.rows("train")
    ids = data.row_ids[rows]
    loaded = Recommender.load(student)
    ranks = target_ranks(loaded.scorer(), data, rows, length=8).kept
    teacher = np.concatenate([np.full(5, -1), known.target_rank])
    band = SelectConfig(how="band", share=0.3, run=student)
    assert select_rows(band, data, None, rows).tolist() == hard_band(ids, ranks, share=0.3).tolist()
    solvable = hard_band(ids, ranks, share=0.3, teacher_ranks=teacher)
    assert select_rows(band, data, known, rows).tolist() == solvable.tolist()
    assert solvable.tolist() != hard_band(ids, ranks, share=0.3).tolist()
    distance = np.concatenate([np.full(5, np.nan), known.target_distance])
    found = select_rows(SelectConfig(how="confidence", share=0.1), data, known, rows)
    assert found.tolist() == confident(ids, distance, 0.1).tolist()
    hard = session_difficulty(loaded.scorer(), data, rows, length=8)
    found = select_rows(SelectConfig(how="budget", count=20, run=student, seed=3), data, None, rows)
    assert found.tolist() == budget_rows(ids, hard, 20, seed=3).tolist()
    assert len(select_rows(SelectConfig(how="random", share=0.5), data, None, rows)) == round(len(rows) / 2)
    assert select_rows(SelectConfig(), data, None, rows).tolist() == ids.tolist()


def test_rows_of_a_file(data, tmp_path):
    rows = data.rows("train")
    test_row = data.row_ids[data.rows("test")][0]
    write_row_ids(tmp_path / "rows.json", [*data.row_ids[rows[:4]], test_row])
    chosen = SelectConfig(how="file", file=str(tmp_path / "rows.json"))
    assert select_rows(chosen, data, None, rows).tolist() == data.row_ids[rows[:4]].tolist()
    write_row_ids(tmp_path / "rows.json", [10**9])
    with pytest.raises(DataError, match="1000000000"):
        select_rows(chosen, data, None, rows)


def test_what_is_missing_is_said(data, known, student):
    rows = data.rows("train")
    for how in ("band", "budget"):
        with pytest.raises(ConfigError, match=r"select\.run=r/"):
            select_rows(SelectConfig(how=how), data, known, rows)
    with pytest.raises(ConfigError, match=r"select\.file=rows\.parquet"):
        select_rows(SelectConfig(how="file"), data, known, rows)
    with pytest.raises(KnowledgeError, match="target_distance"):
        select_rows(SelectConfig(how="confidence"), data, None, rows)
    other = ring_dataset(seed=5)
    with pytest.raises(FingerprintError):
        select_rows(SelectConfig(how="band", run=student), other, None, other.rows("train"))


def test_knowledge_of_the_selected_rows_alone(data, known):
    chosen = select_knowledge(config("select.how=confidence", "select.share=0.1"), data, known)
    assert len(chosen) == round(0.1 * len(data.rows("train")))
    assert chosen.target_distance.max() < np.quantile(known.target_distance, 0.15)
    with pytest.raises(
        KnowledgeError, match="no knowledge"
    ):  # a random row may be one nobody was asked about
        select_knowledge(config("select.how=random", "select.share=1"), data, known)
    masked = config("select.how=random", "select.share=1", "train.coverage=mask")
    assert len(select_knowledge(masked, data, known)) == len(known)


def test_a_run_learns_from_the_selected_rows_and_masks_the_others(data, known, tmp_path, monkeypatch):
    seen = {}

    def distill(dataset, model, loss, strategies, knowledge, **options):
        seen.update(rows=len(knowledge), coverage=options["coverage"])

    monkeypatch.setattr("recdistill.config.build.distill", distill)
    monkeypatch.setattr("recdistill.config.build.load_knowledge", lambda *_: known)
    run(config("select.how=confidence", "select.share=0.1"), tmp_path, dataset=data)
    assert seen == {"rows": round(0.1 * len(data.rows("train"))), "coverage": "mask"}
    run(config("select.how=confidence", "train.coverage=skip"), tmp_path, dataset=data)
    assert seen["coverage"] == "skip"
    run(config(), tmp_path, dataset=data)
    assert seen == {"rows": len(known), "coverage": "error"}


@pytest.mark.parametrize("name", ["alphafuse", "collaborative", "text_only", "two_branch"])
def test_item_encoders_are_chosen_by_name_and_told_which_items_are_cold(known, name):
    cold = np.arange(ITEMS) >= ITEMS - 4
    made = build_model(config(f"item_encoder.name={name}"), ITEMS, known, cold)
    assert made.tied
    assert made.item_encoder.warm is not None
    if name != "text_only":
        assert made.item_encoder.offsets[cold].abs().max() == 0
        free = build_model(
            config(f"item_encoder.name={name}", "item_encoder.free_cold=true"), ITEMS, known, cold
        )
        assert free.item_encoder.warm is None
    parts = config(f"item_encoder.name={name}", f"{name}.inject=input", "student.tied=false")
    assert parts.item_encoder.inject == "input"
    untied = build_model(parts, ITEMS, known, cold)
    assert type(untied.output_encoder) is Ids


def test_a_run_tells_the_encoder_which_items_training_never_sees(known, tmp_path, monkeypatch):
    data, seen = ring_dataset(), {}
    cold = np.arange(ITEMS) % 9 == 4
    vars(data)["cold_items"] = cold
    monkeypatch.setattr(
        "recdistill.config.build.distill", lambda dataset, model, *_, **__: seen.update(model=model)
    )
    monkeypatch.setattr("recdistill.config.build.load_knowledge", lambda *_: known)
    run(config("item_encoder.name=collaborative", strategy="none"), tmp_path, dataset=data)
    assert seen["model"].item_encoder.warm.flatten().tolist() == (~cold).tolist()


def test_two_tables_of_one_teacher_hold_it_once(known):
    made = build_model(config("item_encoder.name=collaborative", "student.tied=false"), ITEMS, known)
    first, second = made.item_encoder, made.output_encoder
    assert isinstance(second, Collaborative)
    assert first is not second
    assert first.teacher.data_ptr() == second.teacher.data_ptr()
    assert first.entry.weight.data_ptr() != second.entry.weight.data_ptr()
    assert (first.offsets != second.offsets).any()


def test_an_option_called_weight_is_that_of_the_encoder_or_of_the_strategy():
    made = config("collaborative.weight=0.7", "importance.weight=0.9", strategy="dllm2rec")
    assert made.item_encoder.options["weight"] == 0.7
    assert made.strategies[0].weight == 0.9


def test_wrong_selection_is_refused():
    with pytest.raises(ConfigError, match="how"):
        config("select.how=bands")
    with pytest.raises(ConfigError, match="share"):
        config("select.share=0")
    with pytest.raises(ConfigError, match="Did you mean 'share'"):
        config("select.shares=0.5")


def test_example_file_of_a_selection(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("select: {how: band, share: 0.3, run: r}\n")
    made = resolve({"dataset": "d"}, strategy=None, file=tmp_path / "c.yaml", words=[])
    assert (made.select.how, made.select.share, made.select.run) == ("band", 0.3, "r")
