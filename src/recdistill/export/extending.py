"""New items without training: a title is encoded, whitened and mapped as the student's own items were.

The way was proved at export (`recdistill.export.text_path`), and is proved again here: the titles of some old items
must still lead to their vectors, so that another encoder, or another version of it, is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recdistill.data import Catalogue
from recdistill.errors import DataError, RunError
from recdistill.export.exporting import ExportReport, export_recommender
from recdistill.export.kinds import is_export
from recdistill.export.recommender import PRIOR, Recommender
from recdistill.export.text_path import TextPath, same_vectors, through
from recdistill.item_encoders import Ids, TextMap
from recdistill.runs import fingerprint, read_json
from recdistill.students import SequenceModel
from recdistill.teachers.text import encode_further
from recdistill.titles import normalise_title

Floats = npt.NDArray[np.float32]


def extend_export(
    folder: Path | str,
    items: pl.DataFrame,
    out: Path | str,
    *,
    encoder: str | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write an export whose catalogue has further items.

    The items before keep their numbers and vectors. A new item's bias, where there are biases, is the median of those
    of the items that training saw. Where only the output table comes from text, a new item can be recommended, but
    says nothing as part of a history.

    Parameters
    ----------
    folder
        An exported folder.
    items
        Columns ``item_id``, ``title`` and any others; ids that are new.
    out
        Folder to write.
    encoder
        Where the text encoder is now, if it moved; it must be the same one.
    overwrite
        Replace an earlier export.

    Raises
    ------
    RunError
        The export does not form item vectors from text, or the encoder gives other vectors than it did.
    DataError
        An id is not new or occurs twice, or a title is missing.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise RunError(
            f"{folder} is no exported folder. Make one first: recdistill export {folder} --out rec/"
        )
    recommender = Recommender.load(folder)
    path = require_text(recommender, folder)
    frame = _new_items(items, recommender.catalogue)
    vectors = _vectors(recommender, path, frame["title"].to_list(), encoder)
    config = read_json(folder / "config.json")
    table = str(config["table"])
    made = extended(recommender, path, frame, vectors)
    origin = {"name": f"{len(recommender.catalogue):,} items and {frame.height:,} that came later"}
    if config.get("strategy"):
        origin["strategy"] = str(config["strategy"])
    return export_recommender(made, out, table=table, origin=origin, overwrite=overwrite)


def require_text(recommender: Recommender, folder: Path) -> TextPath:
    """Return the way from a title to an item vector.

    Raises
    ------
    RunError
        There is none.
    """
    path = recommender.text
    if path is not None and path.complete:
        return path
    if path is None:
        reason = "its item vectors do not come from text, or it was trained before that was kept"
    elif path.output is None:
        reason = (
            "only its input vectors come from text; those that items are found by were learned from behaviour"
        )
    else:
        reason = path.reason or "no text encoder was named at export"
    raise RunError(
        f"{folder} cannot take new items: {reason}. Allowed: a student whose output table comes from text, exported "
        "with its knowledge folder in place. Train one: recdistill distill --knowledge k/ --strategy dllm2rec "
        "item_encoder.name=collaborative item_encoder.inject=both"
    )


def extended(recommender: Recommender, path: TextPath, frame: pl.DataFrame, vectors: Tensor) -> Recommender:
    """Return the recommender with further items.

    Parameters
    ----------
    recommender
        What is extended.
    path
        Has an output map.
    frame
        The new items, in the catalogue's columns.
    vectors
        ``(n, D)`` their vectors in the teacher's space.
    """
    model, count = recommender.model, len(recommender.catalogue)
    output = _longer(model.output_encoder.table(), path.output, vectors)
    entry = output if model.tied else _longer(model.item_encoder.table(), path.input, vectors)
    made = SequenceModel(model.student, entry, output, bias=model.item_bias is not None)
    if model.item_bias is not None:
        warm = np.setdiff1d(np.arange(count), recommender.cold)
        like = recommender.cold if PRIOR in recommender.spec else warm  # nobody has bought a new item yet
        given = model.item_bias.detach()[torch.from_numpy(like)]
        further = (given.median() if len(given) else torch.zeros(())).expand(frame.height)
        made.item_bias = torch.nn.Parameter(torch.cat([model.item_bias.detach(), further]))
    catalogue = Catalogue(pl.concat([recommender.catalogue.frame, frame]))
    counts = recommender.popularity
    return replace(
        recommender,
        model=made.eval(),
        catalogue=catalogue,
        cold=np.concatenate([recommender.cold, np.arange(count, len(catalogue))]),
        popularity=None if counts is None else np.append(counts, np.zeros(frame.height, dtype=np.int64)),
        added=recommender.added + frame.height,
        dataset_fingerprint=fingerprint(
            "extended", recommender.dataset_fingerprint, *frame["item_id"], *frame["title"]
        ),
    )


def _longer(table: Tensor, made: TextMap | None, vectors: Tensor) -> Ids:
    further = torch.zeros(len(vectors), table.shape[1]) if made is None else made(vectors)
    return Ids.from_table(torch.cat([table.detach(), further]))


def _new_items(items: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Return the new items in the catalogue's columns.

    Raises
    ------
    DataError
        See `extend_export`.
    """
    if missing := {"item_id", "title"} - set(items.columns):
        raise DataError(
            f"the new items have no column {', '.join(sorted(missing))} (they have {', '.join(items.columns)}). "
            "Needed: item_id and title."
        )
    if not items.height:
        raise DataError("there is no new item in the file. Allowed: one row an item, with item_id and title.")
    frame = items.with_columns(pl.all().cast(pl.String).fill_null(""))
    frame = frame.with_columns(
        pl.Series("title", [normalise_title(title) for title in frame["title"]], dtype=pl.String)
    )
    known = frame["item_id"].is_in(catalogue.raw_ids)
    twice = frame["item_id"].is_duplicated()
    for bad, words in ((known, "is in the catalogue already"), (twice, "occurs twice among the new items")):
        if bad.any():
            raise DataError(
                f"item id {frame['item_id'].filter(bad)[0]!r} {words} ({int(bad.sum())} such). Allowed: new ids, each "
                "once. Filter the file."
            )
    if (empty := frame["title"] == "").any():
        raise DataError(
            f"item {frame['item_id'].filter(empty)[0]!r} has no title ({int(empty.sum())} such), so nothing says what "
            "it is. Allowed: a title for each new item."
        )
    columns = catalogue.frame.columns
    return frame.with_columns(pl.lit("").alias(name) for name in columns if name not in frame.columns).select(
        columns
    )


def _vectors(recommender: Recommender, path: TextPath, titles: list[str], encoder: str | None) -> Tensor:
    """Return ``(n, D)`` the new titles' vectors in the teacher's space.

    Raises
    ------
    RunError
        The encoder gives old titles other vectors than it did at export.
    """
    facts: dict[str, Any] = dict(path.encoder)
    known = recommender.catalogue.titles[: len(recommender.catalogue) - recommender.added]
    probes: list[int] = path.tensors["probe_items"].tolist()
    name = encoder or str(facts["name"])
    asked = [known[item] for item in probes] + titles
    found = through(
        torch.from_numpy(encode_further(known, asked, name, size=int(facts["width"]))), path.tensors
    )
    if not same_vectors(found[: len(probes)], path.tensors["probe_vectors"]):
        raise RunError(
            f"the encoder {name!r} gives the titles of the catalogue other vectors than it did at export. Allowed: the "
            "same encoder in the same version. Name its folder: recdistill extend ... --encoder FOLDER, or export anew."
        )
    return found[len(probes) :]
