"""``recdistill export``, ``extend`` and ``push``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recdistill.export import ExportReport

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in --out.")]


def export(
    folder: Annotated[
        Path, typer.Argument(help="Run folder (of several seeds: the first) or recommender folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    table: Annotated[str, typer.Option(help="Item vectors as float32, float16 or int8.")] = "float32",
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset folder; else where the run's config says.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write what servers, batch jobs and the Hub read: safetensors, ONNX with top-k inside, items, a model card."""
    from recdistill.experiments.run_export import export_run

    report = export_run(folder, out, table=table, dataset=dataset, overwrite=overwrite, say=print)
    _print_report(report)
    print(f"next: recdistill recommend {out} --input histories.parquet --output recs.parquet -k 20")


def extend(
    folder: Annotated[Path, typer.Argument(help="Exported folder.")],
    items: Annotated[Path, typer.Option(help="Parquet or CSV with item_id, title and any others.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    encoder: Annotated[
        str | None, typer.Option(help="Where the text encoder is now, if it moved.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Add items by their titles, without training, to an export whose item vectors come from text."""
    import polars as pl

    from recdistill.errors import DataError
    from recdistill.export import extend_export

    try:
        frame = (
            pl.read_parquet(items) if items.suffix == ".parquet" else pl.read_csv(items, infer_schema=False)
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{items} cannot be read ({error}). Allowed: .parquet, or .csv with a header."
        ) from error
    report = extend_export(folder, frame, out, encoder=encoder, overwrite=overwrite)
    _print_report(report)
    print(f"{frame.height:,} items were added")


def push(
    folder: Annotated[Path, typer.Argument(help="Exported folder.")],
    name: Annotated[str, typer.Argument(help="user/name on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="A new one is private.")] = False,
) -> None:
    """Upload an export to a Hugging Face Hub; Recommender.from_pretrained("user/name") reads it."""
    from recdistill.export import push as upload

    print(f"uploaded: {upload(folder, name, private=private)}")
    print(f'next: Recommender.from_pretrained("{name}")')


def _print_report(report: ExportReport) -> None:
    found = report.agreement
    print(
        f"written: {report.folder}; ONNX and torch agree to {max(found['hidden'], found['scores']):.1e} on "
        f"{found['histories']} {found['source']}"
    )
    for loss in report.losses:
        shown = ", ".join(
            f"{one.metric.upper()} {one.reference_value:.4f} → {one.value:.4f}" for one in loss.comparisons
        )
        print(
            f"{loss.split}, {loss.rows:,} rows: {shown}; the same items among the best 20: {loss.overlap:.1%}"
        )
