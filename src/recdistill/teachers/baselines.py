"""What costs nothing: popularity, transitions, graph + text. Every teacher and every student must beat them.

`transition` is the graph of `GraphScorer` from the last item alone, one step, without text; `graph + text` is
eq. 1-3 of that module. Both are tuned on validation rows over the stated grids, like everything else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.evaluate.evaluation import Evaluation
from recdistill.evaluate.ranks import RankPair, target_ranks
from recdistill.knowledge.store import title_hash
from recdistill.runs import atomic_file, fingerprint, write_json
from recdistill.teachers.base import Scorer
from recdistill.teachers.graph.scorer import GraphOptions, GraphScorer
from recdistill.teachers.graph.tuning import GRID, tune
from recdistill.teachers.text.item_text import TFIDF, ItemText, encode_text
from recdistill.types import Split

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

POPULARITY, TRANSITION, GRAPH_TEXT = "popularity", "transition", "graph + text"
BASELINES = (POPULARITY, TRANSITION, GRAPH_TEXT)

#: Part of the cache key: another number when a formula below or in the graph teacher changes.
_FORMULA = "1"
_LENGTH = 50
_TRANSITION = GraphOptions(
    max_gap=1, backward=0.0, last_items=1, two_hop=0.0, two_hop_items=0, text_weight=0.0
)
_TRANSITION_GRID: dict[str, tuple[float, ...]] = {
    "repeat_weight": GRID["repeat_weight"],
    "max_gap": (1, 3),
    "backward": GRID["backward"],
}


def baselines(dataset: SequenceDataset, text: Floats | None = None) -> dict[str, Scorer]:
    """Return the free baselines as scorers, tuned on validation rows.

    Parameters
    ----------
    dataset
        Its training events and validation rows.
    text
        ``(I, D)`` item text vectors for `graph + text`; None: TF-IDF of the titles, or no text where there
        are none.
    """
    vectors = _text_of(dataset) if text is None else text
    return {name: _scorer(name, dataset, vectors, _options(name, dataset, vectors)) for name in BASELINES}


def evaluate_baselines(
    dataset: SequenceDataset,
    split: Split,
    *,
    filter_seen: bool,
    learned: Sequence[Split] = (),
    cache: Path | None = None,
    text: ItemText | None = None,
) -> dict[str, Evaluation]:
    """Return the free baselines' ranks on a split, by name: popularity, transition, graph + text.

    Parameters
    ----------
    dataset
        Its training events make the baselines, its validation rows tune them.
    split
        The rows to rank.
    filter_seen
        Whether the items of each row's history are kept out. The tuning looks at ranks with them kept.
    learned
        Splits that are counted like the training rows once the weights are tuned, as students of ``recdistill refit``
        learn from them.
    cache
        A folder, usually ``baselines`` in the dataset's folder, where tuned options and both kinds of ranks
        are kept as ``<name>-<hash>/``; None or a folder that cannot be written: nothing is kept.
    text
        Vectors for `graph + text`; None: TF-IDF of the titles.
    """
    rows = dataset.rows(split)
    encoder = TFIDF if text is None else text.encoder
    given: dict[str, Floats | None] = {} if text is None else {"vectors": text.vectors}
    found = {}
    for name in BASELINES:
        place = None if cache is None else cache / _folder_name(name, dataset, encoder, given.get("vectors"))
        kept = "-".join([split, *(["counting", *learned] if learned else [])])
        ranks = _cached(place, kept, dataset.row_ids[rows])
        if ranks is None:
            if name == GRAPH_TEXT and "vectors" not in given:
                given["vectors"] = _text_of(dataset)
            ranks = _ranked(name, dataset, given.get("vectors"), rows, place, learned)
            _keep(place, kept, dataset.row_ids[rows], ranks)
        found[name] = Evaluation(
            name,
            split,
            dataset.row_ids[rows],
            ranks.of(filter_seen=filter_seen),
            dataset.item_count,
            filter_seen,
            dataset=dataset.fingerprint,
        )
    return found


class PopularityScorer:
    """Scores every item by how often it is a training target, whatever the history.

    Parameters
    ----------
    dataset
        Its training rows are counted.
    """

    def __init__(self, dataset: SequenceDataset) -> None:
        self.popularity = torch.from_numpy(dataset.popularity).float()  # (I,)

    def __call__(self, history: Ints) -> Tensor:
        """Return ``(B, I)`` counts; one row of memory, whatever B."""
        return self.popularity.expand(len(history), -1)


def _text_of(dataset: SequenceDataset) -> Floats | None:
    """Return TF-IDF vectors of the titles, or None where no item has one."""
    titles = dataset.catalogue.titles
    return encode_text(titles).vectors if any(title.strip() for title in titles) else None


def _options(name: str, dataset: SequenceDataset, text: Floats | None) -> GraphOptions | None:
    """Return a baseline's weights, chosen on validation rows; None for popularity."""
    if name == POPULARITY:
        return None
    if name == TRANSITION:
        return tune(dataset, None, _TRANSITION, grid=_TRANSITION_GRID, length=_LENGTH)
    return tune(dataset, text, length=_LENGTH)


def _scorer(name: str, dataset: SequenceDataset, text: Floats | None, options: GraphOptions | None) -> Scorer:
    if options is None:
        return PopularityScorer(dataset)
    return GraphScorer(dataset, text if name == GRAPH_TEXT else None, options)


def _ranked(
    name: str,
    dataset: SequenceDataset,
    text: Floats | None,
    rows: Ints,
    place: Path | None,
    learned: Sequence[Split],
) -> RankPair:
    """Tune, or read what an earlier split tuned, count the splits that are learned from as well, and rank."""
    options = _known_options(place) if name != POPULARITY else None
    if options is None:
        options = _options(name, dataset, text)
    scorer = _scorer(name, dataset.learning_from(*learned), text, options)
    if place is not None and options is not None:
        _quietly(lambda: write_json(place / "options.json", asdict(options)))
    return target_ranks(scorer, dataset, rows, length=_LENGTH)


def _folder_name(name: str, dataset: SequenceDataset, encoder: str, text: Floats | None) -> str:
    """Return ``graph-text-<hash>``: the hash covers all that the ranks depend on."""
    start = {} if name == POPULARITY else asdict(_TRANSITION if name == TRANSITION else GraphOptions())
    grid = {} if name == POPULARITY else _TRANSITION_GRID if name == TRANSITION else GRID
    parts: list[str | bytes] = [_FORMULA, name, dataset.fingerprint, json.dumps([start, grid, _LENGTH])]
    if name == GRAPH_TEXT:
        parts += [encoder, title_hash(dataset.catalogue.titles), b"" if text is None else text.tobytes()]
    return f"{name.replace(' + ', '-')}-{fingerprint(*parts)[:12]}"


def _known_options(place: Path | None) -> GraphOptions | None:
    if place is None or not (place / "options.json").is_file():
        return None
    return GraphOptions(**json.loads((place / "options.json").read_text(encoding="utf-8")))


def _cached(place: Path | None, kept: str, row_ids: Ints) -> RankPair | None:
    """Return the ranks that were kept for exactly these rows, if any."""
    path = None if place is None else place / f"{kept}.parquet"
    if path is None or not path.is_file():
        return None
    frame = pl.read_parquet(path)
    if not np.array_equal(frame["row_id"].to_numpy(), row_ids):
        return None
    return RankPair(frame["kept"].to_numpy(), frame["unseen"].to_numpy())


def _keep(place: Path | None, kept: str, row_ids: Ints, ranks: RankPair) -> None:
    if place is None:
        return

    def write() -> None:
        frame = pl.DataFrame({"row_id": row_ids, "kept": ranks.kept, "unseen": ranks.unseen})
        with atomic_file(place / f"{kept}.parquet") as temporary:
            frame.write_parquet(temporary)

    _quietly(write)


def _quietly(write: Callable[[], None]) -> None:
    """A dataset folder may be read-only; then the next call ranks anew."""
    with suppress(OSError):
        write()
