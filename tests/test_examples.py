"""The scripts of ``examples/`` run, and what they write is read."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl

from recdistill.data import Catalogue, SequenceDataset
from recdistill.teachers.backends import ScriptedGenerator
from recdistill.teachers.rationales import Kar, Slim, Work, make_words, moments
from shop import ITEMS, ring_dataset

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def films() -> SequenceDataset:
    data = ring_dataset(30, 12)
    genres = pl.Series("genres", [("Drama, War", "Comedy", "")[place % 3] for place in range(ITEMS)])
    day = 24 * 3600 * np.arange(len(data.events), dtype=np.int64)
    return dataclasses.replace(
        data, catalogue=Catalogue(data.catalogue.frame.with_columns(genres)), timestamps=day
    )


def test_texts_by_a_rule_are_read_by_both_systems(tmp_path: Path) -> None:
    data = films()
    data.save(tmp_path / "d")
    load("rule_texts").main(str(tmp_path / "d"), "genres", str(tmp_path / "rules"))
    for maker in (Kar(), Slim()):
        scripted = ScriptedGenerator(tmp_path / "rules" / maker.name)
        words = make_words(maker, Work(data, scripted, tmp_path / maker.name))
        assert words.manifest["without_text"]["users"] == 0


def test_no_film_is_named_before_somebody_watched_it(tmp_path: Path) -> None:
    data = films()
    data.save(tmp_path / "d")
    load("rule_texts").main(str(tmp_path / "d"), "genres", str(tmp_path / "rules"))
    titles = data.catalogue.titles
    named = 0
    for line in (tmp_path / "rules" / "slim" / "users.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        before = data.events[: said["row_id"]]  # times ascend with the events here
        watched = {titles[item] for item in before}
        items = json.loads(said["texts"][0])["items"]
        named += len(items)
        assert set(items) <= watched
    assert named
    assert len(moments(data, (0.5, 1.0), most=10, keep="last"))
