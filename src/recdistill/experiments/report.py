"""Results of many models as one report: free baselines, the oracle of a simulated shop, slices, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data import SequenceDataset
from recdistill.errors import unknown_name
from recdistill.evaluate import Evaluation, Report, comparison_report, slice_masks
from recdistill.experiments.apart import tell_apart
from recdistill.experiments.results import Result, refit_on
from recdistill.teachers import evaluate_baselines
from recdistill.types import Split

Ints = npt.NDArray[np.int64]


def baseline_results(
    dataset: SequenceDataset,
    folder: Path,
    split: Split,
    *,
    filter_seen: bool,
    beside: Sequence[Result] = (),
) -> list[Result]:
    """Return the free baselines, tuned on validation; their ranks are kept under the dataset folder.

    Parameters
    ----------
    dataset, folder
        The dataset and where it lies.
    split, filter_seen
        How they are ranked.
    beside
        The lines that they shall stand beside: the baselines learn from the splits that these learned from. Where the
        lines differ in that, so do baselines, and each stands once.
    """
    results = []
    for learned in dict.fromkeys([result.learned for result in beside] or [()]):
        found = evaluate_baselines(
            dataset, split, filter_seen=filter_seen, learned=learned, cache=folder / "baselines"
        )
        results += [
            Result(refit_on(name, learned), "baseline", [evaluation], learned=learned)
            for name, evaluation in found.items()
        ]
    return results


def oracle_results(
    dataset: SequenceDataset, folder: Path, split: Split, *, filter_seen: bool
) -> list[Result]:
    """Return the oracles of a simulated shop: the ceilings; empty for real data.

    A shop's users buy nothing twice, and its oracles know it: their ranks hold with seen items kept or filtered.
    """
    path = folder / "oracle.parquet"
    if not path.is_file():
        return []
    rows = dataset.row_ids[dataset.rows(split)]
    ranks = pl.DataFrame({"row_id": rows}).join(
        pl.read_parquet(path), on="row_id", how="left", maintain_order="left"
    )
    names = {"rank_history": "oracle of the history", "rank": "oracle of the hidden taste"}
    return [
        Result(
            name, "oracle", [_evaluation(name, ranks[column].to_numpy(), rows, dataset, split, filter_seen)]
        )
        for column, name in names.items()
    ]


def _evaluation(
    name: str, ranks: Ints, rows: Ints, dataset: SequenceDataset, split: Split, filter_seen: bool
) -> Evaluation:
    ranks = ranks.astype(np.int64)
    return Evaluation(name, split, rows, ranks, dataset.item_count, filter_seen, dataset=dataset.fingerprint)


def choose_reference(results: Sequence[Result], name: str | None) -> str:
    """Return the line that the others are compared with: the one named, or the first student without a teacher.

    Raises
    ------
    ConfigError
        No line has this name.
    """
    results = tell_apart(results)
    names = [result.name for result in results]
    if name is not None:
        if name not in names:
            raise unknown_name("reference", name, names)
        return name
    return next((result.name for result in results if result.kind == "student"), names[0])


def slice_of(results: Sequence[Result], dataset: SequenceDataset, name: str) -> list[Result]:
    """Return the results on the rows of one slice alone: ``cold``, ``tail``, ``1-5``, ``2 hops``, ...

    Raises
    ------
    ConfigError
        No slice of these rows has the name.
    """
    rows = dataset.positions_of(results[0].evaluations[0].row_ids)
    masks = {key: mask for group in slice_masks(dataset, rows).values() for key, mask in group.items()}
    if name not in masks:
        raise unknown_name("slice", name, masks)
    return [
        replace(result, evaluations=[one.only(masks[name], slice_name=name) for one in result.evaluations])
        for result in results
    ]


def compare_results(
    results: Sequence[Result],
    dataset: SequenceDataset,
    *,
    reference: str,
    slices: bool = True,
    slice_name: str | None = None,
) -> Report:
    """Return one report over the results of one split, or with `slice_name` of one slice of it alone."""
    name_of_rows = dataset.name if slice_name is None else f"{dataset.name}, slice {slice_name}"
    if slice_name is not None:
        results, slices = slice_of(results, dataset, slice_name), False
    named = tell_apart(results)
    groups = {result.name: result.evaluations for result in named}
    kinds = {result.name: result.kind for result in named}
    masks = slice_masks(dataset, dataset.positions_of(results[0].evaluations[0].row_ids)) if slices else None
    return comparison_report(
        groups, reference=reference, dataset_name=name_of_rows, slices=masks, kinds=kinds
    )
