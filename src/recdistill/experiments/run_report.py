"""``recdistill report``: runs side by side on one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.data import SequenceDataset
from recdistill.errors import RunError
from recdistill.evaluate import Latency, Report, compare_latency
from recdistill.evaluate.tables import Table, tables
from recdistill.experiments.blocks import picture_of
from recdistill.experiments.document import Document
from recdistill.experiments.plots import Curve, curves_picture, latency_picture, slices_picture
from recdistill.experiments.results import seed_folders
from recdistill.export import Recommender
from recdistill.knowledge import Audit, render_audit
from recdistill.runs import MANIFEST, atomic_file, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.students import SequenceModel

__all__ = ["RunParts", "audit_tables", "learning_curves", "run_document", "single_user_times", "write_page"]

_TOP = 20


@dataclass(frozen=True)
class RunParts:
    """What belongs to a line of the comparison: its name there and its run folder."""

    name: str
    folder: Path


def run_document(
    report: Report,
    runs: Sequence[RunParts],
    latencies: dict[str, Latency],
    audit: Audit | None = None,
) -> Document:
    """Put everything known about some runs into one document.

    Parameters
    ----------
    report
        The comparison.
    runs
        The lines of it that are runs.
    latencies
        Line → time of one user's answer; empty: not measured.
    audit
        Of the teacher, or None.
    """
    curves = [curve for run in runs for curve in learning_curves(run)]
    metric = report.metric
    pictures = [
        *picture_of("comparison", f"{metric.upper()} with intervals, and differences", report),
        *curves_picture(curves, "ndcg@20"),
        *slices_picture(report),
        *latency_picture(report, latencies),
    ]
    found = [*tables(report), *_latency_table(report, latencies), *_epochs_table(curves)]
    notes = ["Validation chose the epochs; the test rows were not looked at before."]
    if not pictures:
        notes.append("There are no pictures: matplotlib is not installed (pip install 'recdistill[report]').")
    if audit is not None:
        found += audit_tables(render_audit(audit))
        notes += [f"Audit: {audit.verdict}", *(f"Audit: {warning}" for warning in audit.warnings)]
    facts: dict[str, Any] = {"report": report.to_dict()}
    return Document(f"{metric.upper()} on {report.dataset}", notes, found, pictures, facts)


def learning_curves(run: RunParts) -> list[Curve]:
    """Return one curve a seed, read from ``metrics.jsonl``.

    Raises
    ------
    RunError
        A line of it is no JSON object.
    """
    curves = []
    for folder in seed_folders(run.folder):
        path = folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        try:
            records = [json.loads(line) for line in lines if line.strip()]
            found = [
                (int(r["epoch"]), float(r["train"]["total"]), r.get("valid", {}).get("ndcg@20"))
                for r in records
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged ({error!r}). Train the run anew with --overwrite.") from error
        epochs, loss, valid = zip(*found, strict=True) if found else ((), (), ())
        curves.append(Curve(run.name, [epoch + 1 for epoch in epochs], loss, valid))
    return curves


def single_user_times(
    runs: Sequence[RunParts], dataset: SequenceDataset, *, repeats: int = 100
) -> dict[str, Latency]:
    """Measure the 20 best items of one user, one thread, all runs in turns within one process.

    Parameters
    ----------
    runs
        Of a run of several seeds the first counts.
    dataset
        Its test histories are asked, one after the other.
    repeats
        Answers timed of each run.
    """
    import torch

    rows = dataset.rows("test")[:50]
    calls = {}
    for run in runs:
        recommender = Recommender.load(run.folder)
        histories = torch.from_numpy(dataset.histories(rows, recommender.length))
        asked = [line[None, : max(1, int((line >= 0).sum()))] for line in histories]
        k = min(_TOP, dataset.item_count)

        calls[run.name] = partial(_answer_next, recommender.model, cycle(asked), k)
    return dict(compare_latency(calls, repeats).latencies) if calls else {}


def _answer_next(model: SequenceModel, histories: Iterator[Tensor], k: int) -> None:
    model.score(next(histories)).topk(k)


def _latency_table(report: Report, latencies: dict[str, Latency]) -> list[Table]:
    if not latencies:
        return []
    kinds = {line.name: line.kind for line in report.lines}
    lines = [
        [name, *(f"{value:.3f}" for value in (one.cpu_p50, one.cpu_p99, one.p50, one.p99)), str(one.repeats)]
        for name, one in latencies.items()
    ]
    columns = ["model", "CPU p50 ms", "CPU p99 ms", "wall p50 ms", "wall p99 ms", "answers"]
    caption = (
        "The 20 best items of one user among all, torch, one thread; the models take turns in one process."
    )
    return [Table("Latency", columns, lines, [kinds[name] for name in latencies], caption)]


def _epochs_table(curves: Sequence[Curve]) -> list[Table]:
    lines = []
    for curve in curves:
        known = [(v, e) for e, v in zip(curve.epochs, curve.valid, strict=True) if v is not None]
        best, epoch = max(known) if known else (float("nan"), 0)
        lines.append([curve.name, str(len(curve.epochs)), str(epoch), f"{best:.4f}"])
    columns = ["model", "epochs", "best epoch", "NDCG@20 valid"]
    return [Table("Training", columns, lines, [], "One line a seed.")] if lines else []


def audit_tables(markdown: str) -> list[Table]:
    """Return the tables of an audit's Markdown, under its headings."""
    found, title, rows = [], "", list[list[str]]()
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            cells = line.strip()[1:-1].replace("\\|", "\0").split("|")
            rows.append([cell.strip().replace("\0", "|") for cell in cells])
            continue
        if len(rows) > 2:
            found.append(Table(f"Teacher: {title}", rows[0], rows[2:], [], ""))
        rows = []
        title = line.lstrip("# ") if line.startswith("#") else title
    return found


def write_page(document: Document, path: Path) -> None:
    """Write the page, or nothing.

    Raises
    ------
    RunError
        `path` is a folder, or a file that is no HTML page.
    """
    if path.is_dir() or (path.is_file() and not path.read_bytes()[:9].upper().startswith(b"<!DOCTYPE")):
        raise RunError(
            f"{path} is no HTML page: it is not replaced. Choose another --out, such as report.html."
        )
    with atomic_file(path) as temporary:
        temporary.write_text(document.to_html(), encoding="utf-8")


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run, of one seed or several, and not a teacher's knowledge."""
    return not (folder / MANIFEST).is_file() or read_json(folder / MANIFEST).get("kind") == "run"
