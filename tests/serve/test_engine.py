"""The engine against the student followed by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exported_folder import ITEMS, best_of, hidden_of, unpacked, write_export
from recdistill.data import Catalogue
from recdistill.errors import ConfigError, DataError, RunError
from recdistill.serve import Engine

HISTORIES = [[1], [1, 2, 3], list(range(20)), [5] * 10, [0, 119, 0, 119]]


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_lists_are_those_of_the_student_by_hand(tmp_path: Path, kind: str) -> None:
    arrays = write_export(tmp_path / "rec", kind=kind)
    engine = Engine.load(tmp_path / "rec")
    for history in HISTORIES:
        given = [np.array(history)]
        found = engine.recommend(given, 7)[0]
        assert found.items.tolist() == best_of(arrays, history, 7, out=set(history))
        found = engine.recommend(given, ITEMS, exclude_seen=False, deny=np.array([3, 4]))[0]
        assert found.items.tolist() == best_of(arrays, history, ITEMS, out={3, 4})
        among = [2, 3, 5, 8, 13]
        found = engine.recommend(given, 3, exclude_seen=False, among=np.array(among))[0]
        assert found.items.tolist() == best_of(arrays, history, 3, among=among)
    together = engine.recommend([np.array(history) for history in HISTORIES], 5)
    alone = [engine.recommend([np.array(history)], 5)[0] for history in HISTORIES]
    assert [one.items.tolist() for one in together] == [one.items.tolist() for one in alone]
    scores = unpacked(arrays) @ hidden_of(arrays, [1, 2, 3]) + arrays["item_bias"]
    assert together[1].scores == pytest.approx(scores[together[1].items], abs=1e-5)


def test_similar_is_the_cosine(tmp_path: Path) -> None:
    arrays = write_export(tmp_path / "rec")
    table = arrays["item_table"]
    cosine = table @ table[9] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[9])
    cosine[9] = -2
    found = Engine.load(tmp_path / "rec").similar(9, 6)
    assert found.items.tolist() == np.argsort(-cosine)[:6].tolist()
    assert found.scores == pytest.approx(np.sort(cosine)[::-1][:6], abs=1e-5)


def test_explain_is_the_score_without_each_item(tmp_path: Path) -> None:
    arrays = write_export(tmp_path / "rec")
    engine = Engine.load(tmp_path / "rec")
    history, item = [1, 2, 3, 1], 40

    def score(items: list[int]) -> float:
        return float(arrays["item_table"][item] @ hidden_of(arrays, items) + arrays["item_bias"][item])

    total, effects = engine.explain(np.array(history), item)
    assert total == pytest.approx(score(history), abs=1e-5)
    wanted = {
        (history[at], round(score(history) - score(history[:at] + history[at + 1 :]), 4)) for at in range(4)
    }
    assert {(one.item, round(one.effect, 4)) for one in effects} == wanted
    sizes = [abs(one.effect) for one in effects]
    assert sizes == sorted(sizes, reverse=True)
    assert engine.explain(np.array([1]), item)[1] == []


def test_names_are_found_as_the_catalogue_finds_them(tmp_path: Path) -> None:
    import polars as pl

    from exported_folder import columns

    write_export(tmp_path / "rec")
    items = Engine.load(tmp_path / "rec").items
    catalogue = Catalogue(pl.DataFrame(columns(ITEMS)))
    names = [
        "id-7",
        "Heat",
        "heat",
        "HEAT <B>&",
        "AMÉLIE",
        "Amélie",
        " toy   story (1995) ",
        "“Heat”",
        "Film 9 (1959)",
    ]
    assert [items.find(name) for name in names] == catalogue.index_of(names).tolist()
    assert [items.find(name) for name in ("", " ", "nobody", "id-", "\x00", "e\u0301" * 9)] == [None] * 6


def test_search_wants_every_word_and_puts_beginnings_first(tmp_path: Path) -> None:
    write_export(tmp_path / "rec")
    find = Engine.load(tmp_path / "rec").items.search.find
    assert find("story", 5).tolist() == [1, 2, 3]
    assert find("  STORY   of ", 5).tolist() == [3]
    assert find("amelie", 5).tolist() == [0]
    assert find("toy story 2", 5).tolist() == [2]
    assert find("film 11", 4).tolist() == [11, 110, 111, 112]
    assert find("nothing like it", 5).tolist() == []
    assert find("\n", 5).tolist() == []
    assert find("(", 3).tolist() == [1, 2, 8]
    assert find("t", 2).tolist() == [3, 1] or len(find("t", 2)) == 2


def test_categories(tmp_path: Path) -> None:
    write_export(tmp_path / "rec")
    items = Engine.load(tmp_path / "rec").items
    assert set(items.categories) == {"genres", "shelf"}  # the blurb has one value an item
    assert items.in_category("genres", ["horror"]).tolist() == list(range(3, ITEMS, 4))
    assert items.in_category("genres", ["Drama "]).tolist() == [i for i in range(ITEMS) if i % 4 in (1, 2)]
    with pytest.raises(ConfigError, match="no category 'title'"):
        items.in_category("title", ["x"])
    with pytest.raises(ConfigError, match="no item has the genres 'western'"):
        items.in_category("genres", ["western"])


def test_items_from_parquet_are_the_same(tmp_path: Path) -> None:
    write_export(tmp_path / "one")
    write_export(tmp_path / "two", parquet=True)
    one, two = Engine.load(tmp_path / "one"), Engine.load(tmp_path / "two")
    assert list(one.items.titles) == list(two.items.titles)
    assert set(two.items.categories) == {"genres", "shelf"}
    assert one.version != two.version


def test_mistakes_are_refused(tmp_path: Path) -> None:
    write_export(tmp_path / "rec")
    engine = Engine.load(tmp_path / "rec")
    with pytest.raises(ConfigError, match="k is 0"):
        engine.recommend([np.array([1])], 0)
    with pytest.raises(DataError, match="history 1 is empty"):
        engine.recommend([np.array([1]), np.array([], dtype=np.int64)], 3)
    with pytest.raises(RunError, match="no recommender-export folder"):
        Engine.load(tmp_path / "nothing")


def test_import_loads_neither_torch_nor_polars_nor_the_web_framework() -> None:
    code = (
        "import recdistill.serve.engine, sys;"
        "print([m for m in ('torch', 'polars', 'accelerate', 'fastapi', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_and_answering_needs_no_torch(tmp_path: Path) -> None:
    write_export(tmp_path / "rec")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'polars', 'accelerate', 'onnx', 'scipy', 'pyarrow']));"
        "import numpy as np; from recdistill.serve import Engine, Fleet, create_app; from pathlib import Path;"
        f"folder = Path({str(tmp_path / 'rec')!r}); app = create_app(Fleet({{'rec': folder}}));"
        "print(len(Engine.load(folder).recommend([np.array([1])], 3)[0].items))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_nothing_of_a_read_folder_is_kept_twice(tmp_path: Path) -> None:
    """The bytes of the graphs are let go: onnxruntime's Python class would hold them for as long as it lives."""
    write_export(tmp_path / "rec")
    engine = Engine.load(tmp_path / "rec")
    assert engine._scorer.prefilter is not None
    for made in (engine._encoder, *engine._scorer.prefilter._products):
        assert not [name for name, value in vars(made).items() if isinstance(value, bytes)]


def test_the_image_is_stripped_of_what_no_request_needs(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "serving" / "strip.sh"
    gone = (
        "pip/x.py",
        "onnxruntime/transformers/x.py",
        "numpy/tests/x.py",
        "numpy/a.pyi",
        "onnxruntime/capi/libonnxruntime.so.1",
    )
    kept = ("numpy/a.py", "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311.so", "fastapi/app.py")
    for name in gone + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    subprocess.run(["sh", script, tmp_path], check=True, capture_output=True)
    assert not [name for name in gone if (tmp_path / name).exists()]
    assert [name for name in kept if (tmp_path / name).exists()] == list(kept)
