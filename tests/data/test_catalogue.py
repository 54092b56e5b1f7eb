from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data import Catalogue, normalise_title, sorted_ids
from recdistill.errors import DataError


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('  "Tom Clancy&#39;s   Ghost Recon" \n', "Tom Clancy's Ghost Recon"),
        ("Ratchet &amp; Clank", "Ratchet & Clank"),
        ("AT&amp;amp;T", "AT&amp;T"),  # unescaped once
        ("'Til There Was You (1997)", "'Til There Was You (1997)"),
        ('"Great Performances" Cats (1998)', '"Great Performances" Cats (1998)'),
        ('"a" and "b"', '"a" and "b"'),
        ("“Quoted”", "Quoted"),
        ("Cafe\u0301", "Caf\u00e9"),
        ('""', ""),
        ('"', '"'),
        ("a\u00a0b\tc", "a b c"),
    ],
)
def test_normalise_title(raw: str, expected: str) -> None:
    assert normalise_title(raw) == expected


@given(st.text(st.characters(exclude_characters="&")))
def test_normalised_title_stays_as_it_is(text: str) -> None:
    once = normalise_title(text)
    assert normalise_title(once) == once
    assert once == once.strip()


def test_ids_sort_as_numbers_if_all_are() -> None:
    assert sorted_ids(pl.Series(["10", "9", "2", "9"])).to_list() == ["2", "9", "10"]
    assert sorted_ids(pl.Series([10, 9, 2])).to_list() == [2, 9, 10]
    assert sorted_ids(pl.Series(["0054890", "9", "007", "7"])).to_list() == ["007", "7", "9", "0054890"]
    assert sorted_ids(pl.Series(["B2", "10", "9"])).to_list() == ["10", "9", "B2"]


def catalogue() -> Catalogue:
    items = pl.DataFrame(
        {
            "item_id": ["3", "1", "2", "10", "1", "99"],
            "title": [
                "None",
                '"Toy Story (1995)"',
                "Jumanji&nbsp;(1995)",
                "Toy Story (1995)",
                "second row",
                "x",
            ],
            "genres": ["Drama", "Comedy", None, "Comedy", "", ""],
        }
    )
    return Catalogue.from_items(items, ["10", "2", "1", "3", "4", "2"])


def test_numbering_and_titles() -> None:
    made = catalogue()
    assert made.raw_ids == ["1", "2", "3", "4", "10"]
    assert made.titles == ["Toy Story (1995)", "Jumanji (1995)", "", "", "Toy Story (1995)"]
    assert made.frame["genres"].to_list() == ["Comedy", "", "Drama", "", "Comedy"]
    assert made.title_report() == {
        "items": 5,
        "missing": 2,
        "duplicated_titles": 1,
        "items_with_duplicated_title": 2,
    }


def test_numbering_does_not_depend_on_the_order_of_the_ids() -> None:
    ids = [f"B{k}" for k in range(50)]
    assert Catalogue.from_items(None, ids).raw_ids == Catalogue.from_items(None, ids[::-1]).raw_ids


def test_index_of_ids_and_titles() -> None:
    made = catalogue()
    names = ["10", "Toy Story (1995)", ' "toy story (1995)" ', "Jumanji (1995)"]
    assert made.index_of(names).tolist() == [4, 0, 0, 1]  # a shared title: the first item that has it


def test_an_id_wins_over_a_title() -> None:
    made = Catalogue.from_items(pl.DataFrame({"item_id": ["1", "2"], "title": ["2", "1"]}), ["1", "2"])
    assert made.index_of(["1", "2"]).tolist() == [0, 1]


def test_an_exact_title_wins_over_one_without_case() -> None:
    made = Catalogue.from_items(pl.DataFrame({"item_id": ["1", "2"], "title": ["IT", "It"]}), ["1", "2"])
    assert made.index_of(["It", "IT", "it"]).tolist() == [1, 0, 0]


def test_unknown_name_lists_the_nearest_titles() -> None:
    with pytest.raises(
        DataError, match=r"'Toy Storry' is no id and no title.*Nearest titles: 'Toy Story \(1995\)'"
    ):
        catalogue().index_of(["Toy Storry"])
    with pytest.raises(DataError, match=r"Allowed: e\.g\."):
        catalogue().index_of(["zzzzzzzzzzzz"])


def test_text_joins_what_is_there() -> None:
    made = catalogue()
    assert made.text(["title", "genres"]) == [
        "Toy Story (1995). Comedy",
        "Jumanji (1995)",
        "Drama",
        "",
        "Toy Story (1995). Comedy",
    ]
    assert made.text() == made.titles
    with pytest.raises(DataError, match="no column 'brand'"):
        made.text(["brand"])


def test_wrong_frames() -> None:
    with pytest.raises(DataError, match="no column title"):
        Catalogue(pl.DataFrame({"item_id": ["1"]}))
    with pytest.raises(DataError, match="'1' occurs twice"):
        Catalogue(pl.DataFrame({"item_id": ["1", "1"], "title": ["a", "b"]}))
