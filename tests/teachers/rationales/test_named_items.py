"""SLIM's named items as a ranking: brute force, nothing made up, nothing of a row's future, resumable."""

import json

import numpy as np
import pytest

from recdistill.errors import KnowledgeError
from recdistill.knowledge import load_words
from recdistill.knowledge.shards import ShardWriter
from recdistill.teachers.rationales import Kar, Slim, Work, load_encoder, make_words
from recdistill.teachers.rationales.named_items import ground_names, nearest_items
from says import Says, groups_of
from shop import ITEMS, ring_dataset


def speak(prompt):
    """Name a title, an invention near one, nothing known, a title again; every fifth user gets no third step."""
    saga, titles = groups_of(prompt)
    if len(titles) % 5 == 4:
        return json.dumps({"preferences": f"likes {saga}", "categories": [saga], "items": []})
    names = [f"{saga} part 7", f"{saga} part 3 deluxe remastered", "zyx wvu", f"{saga} part 7"]
    return json.dumps({"preferences": f"likes {saga}", "categories": [saga], "items": names})


@pytest.fixture(scope="module")
def data():
    return ring_dataset(24, 12)


@pytest.fixture(scope="module")
def words(data, tmp_path_factory):
    return make_words(Slim(), Work(data, Says(speak), tmp_path_factory.mktemp("t") / "s"))


@pytest.fixture(scope="module")
def grounded(data, words, tmp_path_factory):
    return ground_names(words, data, tmp_path_factory.mktemp("k") / "k", top_k=ITEMS)


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def test_a_ranking_is_the_named_items_and_then_the_nearest_to_the_first(data, words, grounded):
    knowledge, _ = grounded
    titles = list(data.catalogue.titles)
    encoder = load_encoder(words.folder / "encoder")
    table = unit(encoder.encode(titles))
    told = words.table("users").filter(words.table("users")["text"] != "")
    spoken = {word for title in titles for word in title.lower().split()}
    seen = 0
    for row, place in zip(words["row_ids"].tolist(), words["places"].tolist(), strict=True):
        names = told["items"][int(place)].to_list()
        at = np.flatnonzero(knowledge.row_ids == row)
        if not names:
            assert not len(at)
            continue
        expected = []
        for name in names:
            vector = encoder.encode([name])
            if any(word in spoken for word in name.lower().split()):
                item = titles.index(name) if name in titles else int((table @ unit(vector)[0]).argmax())
                expected += [item] if item not in expected else []
        ranking = knowledge.ranking[at[0]].tolist()
        assert ranking[: len(expected)] == expected
        assert len(expected) == 2
        assert sorted(ranking) == list(range(ITEMS))
        near = 1 - table @ table[expected[0]]
        assert (np.diff(near[ranking[2:]]) > -1e-5).all()
        seen += 1
    assert seen == len(knowledge) > 30


def test_only_rows_that_may_read_the_rationale_have_a_ranking(data, words, grounded):
    knowledge, facts = grounded
    assert set(knowledge.row_ids.tolist()) < set(words["row_ids"].tolist())
    place = dict(zip(words["row_ids"].tolist(), words["places"].tolist(), strict=True))
    for row in knowledge.row_ids.tolist():
        assert words["newest_event"][place[row]] < data.row_events[data.positions_of([row])[0]]
    assert facts.rows + facts.without == len(words["row_ids"])
    assert facts.without > 0
    assert facts.unknown == 1
    assert knowledge.manifest["teacher"] == "slim-items"
    assert knowledge.manifest["name_facts"] == vars(facts)


def test_names_without_a_known_word_name_nothing(data, words):
    from recdistill.teachers.rationales.named_items import FolderEncoder

    encoder = FolderEncoder(words.folder)
    assert nearest_items(["zyx wvu"], data, encoder, words.folder / "tried") == {}
    assert nearest_items([], data, encoder, words.folder / "tried") == {}
    assert nearest_items(["Saga 2 part 4"], data, encoder, words.folder / "tried") == {"Saga 2 part 4": 20}


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_folder(data, words, tmp_path, monkeypatch):
    monkeypatch.setattr("recdistill.teachers.bigrec.teacher.SHARD_ROWS", 16)
    ground_names(words, data, tmp_path / "whole")
    append, count = ShardWriter.append, []

    def dies(self, *given, **fields):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        append(self, *given, **fields)

    monkeypatch.setattr(ShardWriter, "append", dies)
    with pytest.raises(KeyboardInterrupt):
        ground_names(words, data, tmp_path / "k")
    rest = []
    monkeypatch.setattr(ShardWriter, "append", lambda s, ids, **f: (rest.extend(ids), append(s, ids, **f))[1])
    knowledge, _ = ground_names(words, data, tmp_path / "k")
    assert len(rest) == len(knowledge) - 32
    name = "knowledge.safetensors"
    assert (tmp_path / "k" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_does_not_fit_is_refused(data, words, tmp_path):
    kar = make_words(Kar(users=False), Work(data, Says(lambda p: "a story"), tmp_path / "kar"))
    with pytest.raises(KnowledgeError, match="rationales slim"):
        ground_names(kar, data, tmp_path / "k")
    silent = Says(lambda p: json.dumps({"preferences": "toys", "items": ["zyx wvu"] if "part" in p else []}))
    empty = make_words(Slim(), Work(data, silent, tmp_path / "empty"))
    (tmp_path / "empty" / "users.parquet").rename(tmp_path / "kept.parquet")
    words.table("users").write_parquet(tmp_path / "empty" / "users.parquet")
    table = words.table("users").reverse()
    table.write_parquet(tmp_path / "empty" / "users.parquet")
    with pytest.raises(KnowledgeError, match=r"users\.parquet"):
        ground_names(load_words(tmp_path / "empty"), data, tmp_path / "k")
    (tmp_path / "kept.parquet").rename(tmp_path / "empty" / "users.parquet")
    assert empty.maker == "slim"
