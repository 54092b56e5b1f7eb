"""Texts by a rule in the place of a language model's, for ``recdistill rationales kar|slim --backend scripted``.

    python examples/rule_texts.py DATASET GENRES_COLUMN OUT

writes OUT/kar/ and OUT/slim/, to be given as --model. A user is described by the most frequent genres of the films
told at a moment; the items that SLIM's third step names are the films of these genres that most people watched in the
thirty days before the moment. Nothing after a moment is looked at. It shows the format of scripted answers, and what
the machinery makes of texts that say something, where no large language model is at hand.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from recdistill import SequenceDataset
from recdistill.teachers.rationales import Kar, Slim
from recdistill.teachers.rationales.moments import moments

MONTH = 30 * 24 * 3600
NAMED = 5


def main(dataset_folder: str, column: str, out: str) -> None:
    dataset = SequenceDataset.load(dataset_folder)
    frame = dataset.catalogue.frame
    genres = [[part.strip() for part in (value or "").split(",") if part.strip()] for value in frame[column]]
    titles = dataset.catalogue.titles
    items = {place: describe(titles[place], genres[place]) for place in range(len(titles)) if titles[place]}
    kar, slim = Kar(), Slim()
    taste = {}
    for chosen, made in (
        ("kar", moments(dataset, kar.cuts, most=kar.most, keep=kar.keep)),
        ("slim", moments(dataset, slim.cuts, most=slim.most, keep=slim.keep)),
    ):
        taste[chosen] = {
            int(newest): (made.told(dataset, place), favourites(made.told(dataset, place), genres))
            for place, newest in enumerate(made.newest)
        }
    folder = Path(out)
    users = {
        key: "This person likes " + " and ".join(liked) + "." for key, (_, liked) in taste["kar"].items()
    }
    write(folder / "kar" / "items.jsonl", items)
    write(folder / "kar" / "users.jsonl", users)
    told = dict(rationales(dataset, taste["slim"], genres))
    write(folder / "slim" / "users.jsonl", told)
    write(folder / "slim" / "teacher.jsonl", told)  # the same, where they teach a small model


def describe(title: str, genres: list[str]) -> str:
    return f"{title}: {' and '.join(genres) or 'a film'}."


def favourites(told: list[int], genres: list[list[str]]) -> list[str]:
    counts = Counter(genre for item in told for genre in genres[item])
    return [genre for genre, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3]] or [
        "films"
    ]


def rationales(dataset, taste, genres):
    """Yield the three steps of every moment, in the order of time, with what was popular by then."""
    times, titles = dataset.timestamps, dataset.catalogue.titles
    told = np.flatnonzero(dataset.train_event_mask)
    told = told[np.argsort(times[told], kind="stable")]
    recent = np.zeros(dataset.item_count)
    has = {}
    for item, its in enumerate(genres):
        for genre in its:
            has.setdefault(genre, np.zeros(dataset.item_count, bool))[item] = True
    first = last = 0
    for key in sorted(taste, key=lambda event: times[event]):
        now = times[key]
        while last < len(told) and times[told[last]] < now:
            recent[dataset.events[told[last]]] += 1
            last += 1
        while first < last and times[told[first]] < now - MONTH:
            recent[dataset.events[told[first]]] -= 1
            first += 1
        seen, liked = taste[key]
        shared = sum((has[genre] for genre in liked if genre in has), np.zeros(dataset.item_count))
        score = recent * shared
        score[seen] = 0
        named = [titles[item] for item in np.argsort(-score, kind="stable")[:NAMED] if score[item] > 0]
        text = {
            "preferences": "This person likes " + " and ".join(liked) + ".",
            "categories": liked,
            "items": named,
        }
        yield key, json.dumps(text, ensure_ascii=False)


def write(path: Path, texts: dict[int, str]) -> None:
    lines = [
        json.dumps({"row_id": key, "prompt": "", "texts": [text], "scores": []}, ensure_ascii=False) + "\n"
        for key, text in sorted(texts.items())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} texts")


if __name__ == "__main__":
    main(*sys.argv[1:])
