"""Exporting a run: its config says where the dataset and the teacher's item vectors are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recdistill.config import default_filter_seen, describe, method_of, read_config
from recdistill.config.schema import RunConfig
from recdistill.data import SequenceDataset
from recdistill.errors import KnowledgeError, RecdistillError, RunError
from recdistill.evaluate import Evaluation
from recdistill.experiments.results import seed_folders
from recdistill.export import ExportReport, Recommender, export_recommender
from recdistill.export.kinds import is_export
from recdistill.knowledge import load_knowledge
from recdistill.runs import MANIFEST
from recdistill.teachers import encode_text

Say = Callable[[str], None]


def export_run(
    folder: Path,
    out: Path,
    *,
    table: str = "float32",
    dataset: Path | None = None,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> ExportReport:
    """Export a run (of several seeds: the first) or a recommender folder.

    Parameters
    ----------
    folder
        What to export.
    out
        Folder to write.
    table
        ``float32``, ``float16`` or ``int8``.
    dataset
        The dataset's folder; None: where the run's config says it is, if it is still there.
    overwrite
        Replace an earlier export.
    say
        Told what is noticed on the way, in sentences.

    Raises
    ------
    RunError
        The folder is neither, or is an export already, or see `recdistill.export.export_recommender`.
    """
    if is_export(folder):
        raise RunError(
            f"{folder} is an export already. Name the run folder: recdistill export r/ --out {out}"
        )
    config, run = _config_of(folder)
    recommender = Recommender.load(run or folder)
    data_folder = dataset or _still_there(config)
    data = None if data_folder is None else SequenceDataset.load(data_folder)
    if data is None:
        say("no dataset: the graphs are checked on drawn histories, and nothing is measured (--dataset d/)")
    if recommender.text is not None and config is not None and data is not None and data_folder is not None:
        recommender = with_titles(recommender, config, data, data_folder, say)
    origin = {} if config is None else {"name": describe(config), "seed": config.seed}
    if config is not None and (method := method_of(config)) is not None:
        origin["strategy"] = method
    if data is not None:
        origin["dataset"] = f"{data.name}, {data.fingerprint[:12]}"
    return export_recommender(
        recommender,
        out,
        table=table,
        dataset=data,
        filter_seen=False if data is None else default_filter_seen(data),
        evaluations=_evaluations(run),
        origin=origin,
        overwrite=overwrite,
    )


def with_titles(
    recommender: Recommender, config: RunConfig, data: SequenceDataset, data_folder: Path, say: Say
) -> Recommender:
    """Return the recommender with the proved way from a title to its vectors, or with the reason why there is none."""
    path = recommender.text
    if path is None or path.output is None or config.knowledge is None:
        return recommender
    try:
        knowledge = load_knowledge(Path(config.knowledge), data)
        encoder, vectors = knowledge.manifest.get("encoder"), knowledge.item_embeddings
        if not encoder or vectors is None:
            raise KnowledgeError(f"{config.knowledge} names no text encoder")
        say(f"proving the way from titles to item vectors with the encoder {encoder}")
        text = encode_text(data.catalogue.titles, str(encoder), cache=data_folder / "text")
        path = path.proved(text, vectors)
    except RecdistillError as error:
        path = replace(path, reason=str(error))
    if not path.complete:
        say(f"new items will need training: {path.reason}")
    return replace(recommender, text=path)


def _config_of(folder: Path) -> tuple[RunConfig | None, Path | None]:
    """Return a run's config and its folder of one seed; None and None for a recommender folder."""
    if (folder / "config.yaml").is_file() or any(folder.glob("seed-*/config.yaml")):
        run = seed_folders(folder)[0]
        return read_config(run / "config.yaml"), run
    return None, None


def _still_there(config: RunConfig | None) -> Path | None:
    if config is None or not (Path(config.dataset) / MANIFEST).is_file():
        return None
    return Path(config.dataset)


def _evaluations(run: Path | None) -> list[Evaluation]:
    folders = [] if run is None else sorted(path.parent for path in run.glob(f"evaluation/[!.]*/{MANIFEST}"))
    return [Evaluation.load(folder) for folder in folders]
