"""Writing an exported recommender: the folder that servers, batch jobs and the Hub read. ``docs/export.md`` has its
layout.

The graphs are compared with the student on histories before the folder gets its name: one that answers differently is
never left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors.numpy import save_file

from recdistill.columns import columns_of, write_columns
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, RunError
from recdistill.evaluate import Evaluation
from recdistill.export.agreement import check_agreement, drawn_histories
from recdistill.export.best_items import pad_histories
from recdistill.export.card import model_card
from recdistill.export.graph import OPSET, require_onnx
from recdistill.export.kinds import EXPORT_KIND, FORMAT, OWN_COLUMNS
from recdistill.export.loss_of_tables import TableLoss, measure_table
from recdistill.export.onnx_models import write_graphs
from recdistill.export.recommender import PRIOR, REPEATS, Recommender
from recdistill.export.tables import pack_table, unpack_table
from recdistill.item_encoders import Ids
from recdistill.runs import (
    MANIFEST,
    atomic_folder,
    file_checksum,
    require_fingerprint,
    write_json,
    write_manifest,
)
from recdistill.students import SequenceModel
from recdistill.types import HELD_OUT, LEARNED, PAD

_CHECKED_HISTORIES: Final = 512
Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExportReport:
    """What an export found out about the folder it wrote.

    Attributes
    ----------
    folder
        Where it is.
    agreement
        Largest difference between the graphs and torch, over the largest of the numbers compared, at least 1:
        ``{"hidden": ..., "scores": ..., "histories": n, "source": where the histories came from}``.
    losses
        What the packed tables cost, one entry a split; empty without a dataset.
    """

    folder: Path
    agreement: Mapping[str, Any]
    losses: Sequence[TableLoss] = field(default_factory=tuple)


def export_recommender(
    recommender: Recommender,
    out: Path | str,
    *,
    table: str = "float32",
    dataset: SequenceDataset | None = None,
    filter_seen: bool = False,
    evaluations: Sequence[Evaluation] = (),
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write a folder that answers without recdistill's training part.

    Parameters
    ----------
    recommender
        What to export.
    out
        Folder to write.
    table
        ``float32``, ``float16`` or ``int8``: how item vectors are stored, see `recdistill.export.tables`.
    dataset
        The one it was trained on: its histories check the graphs, its valid and test rows measure what a smaller
        table costs, and its counts are written beside the items. Without it histories are drawn at random.
    filter_seen
        How the measurement treats items of the history.
    evaluations
        Results for the model card.
    origin
        Further facts for the model card, e.g. the name of the run; ``strategy`` also goes into ``config.json``.
    overwrite
        Replace an earlier export.

    Raises
    ------
    MissingExtraError
        onnx or onnxruntime is not installed.
    FingerprintError
        The recommender was trained on another dataset.
    RunError
        A number is not finite, `out` exists, or a graph answers differently from the student by more than 1e-4.
    ConfigError
        `table` does not exist, the student has no graph, or it reads what was written about users.
    """
    require_onnx()
    if recommender.model.user_encoder is not None:
        raise ConfigError(
            "this student reads what a language model wrote about users, and an exported folder answers from histories "
            "alone. Allowed: a student without a user side (kar.users=false). Ask this one with: recdistill recommend"
        )
    if dataset is not None:
        require_fingerprint(recommender.dataset_fingerprint, dataset.fingerprint, "the recommender")
    tensors = packed_tensors(recommender, table)
    packed = unpacked(recommender, tensors)
    histories, source = _histories(packed, dataset)
    losses: list[TableLoss] = []
    if dataset is not None and table != "float32":
        losses = [
            measure_table(recommender, packed, dataset, split, filter_seen)
            for split in HELD_OUT
            if split not in recommender.learned
        ]
    with atomic_folder(Path(out), overwrite=overwrite) as folder:
        save_file(tensors, folder / "model.safetensors")
        config = export_config(recommender, table, (origin or {}).get("strategy"))
        write_json(folder / "config.json", config)
        items = _items(recommender, dataset)
        items.write_parquet(folder / "items.parquet")
        write_columns(
            folder / "items.safetensors", columns_of(items)
        )  # for a server without a parquet reader
        write_graphs(folder, packed.model.student, tensors, length=recommender.length)
        agreement = {**check_agreement(folder, packed, histories), "source": source}
        if recommender.text is not None:
            recommender.text.save(folder / "text.safetensors")
        card = model_card(
            config, dict(origin or {}), agreement, losses, evaluations, len(recommender.catalogue)
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        _manifest(folder, recommender, agreement)
    return ExportReport(Path(out), agreement, losses)


def packed_tensors(recommender: Recommender, table: str) -> dict[str, Array]:
    """Return what ``model.safetensors`` holds.

    Raises
    ------
    RunError
        A number is not finite.
    """
    model = recommender.model
    tensors: dict[str, Array] = {
        f"student.{name}": value.detach().float().cpu().numpy()
        for name, value in model.student.state_dict().items()
    }
    tensors |= pack_table(_table(model.output_encoder), table, "item")
    if not model.tied:
        tensors |= pack_table(_table(model.item_encoder), table, "input")
    if model.item_bias is not None:
        tensors["item_bias"] = model.item_bias.detach().float().cpu().numpy()
    for name, value in tensors.items():
        require_finite(name, value)
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def require_finite(name: str, value: Array) -> None:
    """Refuse NaN and inf.

    Raises
    ------
    RunError
        There is one.
    """
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        count = int((~np.isfinite(value)).sum())
        raise RunError(
            f"{name} holds {count} of {value.size} numbers that are not finite. Allowed: finite numbers. Train the "
            "run anew (recdistill distill ... --overwrite) or export it anew (recdistill export)."
        )


def unpacked(recommender: Recommender, tensors: Mapping[str, Array]) -> Recommender:
    """Return the recommender with the tables as they are after packing: what the folder answers with."""
    model = recommender.model
    output = Ids.from_table(torch.from_numpy(unpack_table(tensors, "item")))
    entry = output if model.tied else Ids.from_table(torch.from_numpy(unpack_table(tensors, "input")))
    made = SequenceModel(model.student, entry, output, bias=model.item_bias is not None)
    if made.item_bias is not None:
        made.item_bias = torch.nn.Parameter(torch.from_numpy(tensors["item_bias"]))
    return replace(recommender, model=made.cpu().eval())


def export_config(recommender: Recommender, table: str, strategy: str | None = None) -> dict[str, Any]:
    """Return ``config.json``; `strategy` is how the student was taught, None: without a teacher, or unknown."""
    model = recommender.model
    return {
        "student": recommender.spec["student"],
        "strategy": strategy,
        "options": dict(recommender.spec["options"]),
        "length": recommender.length,
        "item_count": len(recommender.catalogue),
        "embedding_size": model.student.embedding_size,
        "hidden_size": model.student.hidden_size,
        "tied": model.tied,
        "bias": model.item_bias is not None,
        "pad": PAD,
        REPEATS: bool(recommender.spec.get(REPEATS, True)),
        PRIOR: recommender.spec.get(PRIOR),
        LEARNED: list(recommender.learned),
        "table": table,
        "opset": OPSET,
        "cold": recommender.cold.tolist(),
        "added": recommender.added,
        "text_columns": [name for name in recommender.catalogue.text_columns if name not in OWN_COLUMNS],
        "extendable": recommender.text is not None and recommender.text.complete,
    }


def _table(encoder: Any) -> npt.NDArray[np.float32]:
    table: npt.NDArray[np.float32] = encoder.table().detach().float().cpu().numpy()
    return table


def _histories(recommender: Recommender, dataset: SequenceDataset | None) -> tuple[Ints, str]:
    """Return ``(n, L)`` histories to check the graphs with, and where they come from."""
    if dataset is None:
        return drawn_histories(
            len(recommender.catalogue), recommender.length, _CHECKED_HISTORIES
        ), "histories drawn at random"
    rows = dataset.rows("test") if len(dataset.rows("test")) else dataset.rows("train")
    if not len(rows):
        raise ConfigError(
            "the dataset has no row to check the export with. Allowed: one with train or test rows."
        )
    some = rows[np.unique(np.linspace(0, len(rows) - 1, _CHECKED_HISTORIES).astype(np.int64))]
    grid = dataset.histories(some, recommender.length)
    known = [line[line >= 0] for line in grid if (line >= 0).any()]
    return pad_histories(known, recommender.length), f"histories of {dataset.name}"


def _items(recommender: Recommender, dataset: SequenceDataset | None) -> pl.DataFrame:
    """Return ``items.parquet``: index, item_id, title, further text, and how often it is a training target."""
    frame = recommender.catalogue.frame
    clash = [name for name in OWN_COLUMNS if name in frame.columns]
    frame = frame.rename({name: f"{name}_text" for name in clash})
    counts = recommender.popularity
    if dataset is not None:
        counts = dataset.learning_from(*recommender.learned).popularity
    popularity = pl.lit(None, dtype=pl.Int64) if counts is None else pl.Series(counts.astype(np.int64))
    return frame.select(
        pl.int_range(frame.height, dtype=pl.Int64).alias("index"), pl.all(), popularity.alias("popularity")
    )


def _manifest(folder: Path, recommender: Recommender, agreement: Mapping[str, Any]) -> None:
    files = {
        path.name: {"sha256": file_checksum(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    for path in folder.iterdir():
        path.chmod(0o644)
    write_manifest(
        folder,
        EXPORT_KIND,
        {
            "format": FORMAT,
            "dataset_fingerprint": recommender.dataset_fingerprint,
            "files": files,
            "agreement": dict(agreement),
        },
    )
