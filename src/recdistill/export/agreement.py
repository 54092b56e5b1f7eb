"""Whether the graphs of a folder answer as the student does: the same numbers, on the same histories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from recdistill.errors import RunError
from recdistill.extras import extra

if TYPE_CHECKING:
    from recdistill.export.recommender import Recommender

Ints = npt.NDArray[np.int64]
TOLERANCE: Final = 1e-4
_TOP: Final = 20


def drawn_histories(item_count: int, length: int, count: int, seed: int = 0) -> Ints:
    """Return ``(count, L)`` histories of 1 to L items drawn at random, padded on the right."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(item_count, size=(count, length))
    lengths = rng.integers(1, length + 1, size=(count, 1))
    lengths[:2, 0] = 1, length  # the ends are always tried
    return np.where(np.arange(length) < lengths, grid, -1)


def session(path: Path) -> Any:
    """Return an onnxruntime session of one thread.

    Raises
    ------
    RunError
        The file is no graph that onnxruntime can run.
    """
    with extra("export"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is no graph that can be run ({reason}). Export the run anew.") from error


def check_agreement(folder: Path, recommender: Recommender, histories: Ints) -> dict[str, Any]:
    """Compare ``encoder.onnx`` and ``model.onnx`` with the student, one history alone and all of them together.

    Parameters
    ----------
    folder
        The export.
    recommender
        With the tables that the export holds.
    histories
        ``(n, L)``, padded on the right.

    Returns
    -------
    dict
        ``hidden`` and ``scores``: largest difference over the largest number compared, at least 1; ``histories``: n.

    Raises
    ------
    RunError
        One of them is above 1e-4, or NaN.
    """
    grid = torch.from_numpy(histories)
    model = recommender.model
    with torch.no_grad():
        hidden = model.encode(grid, (grid >= 0).sum(1)).numpy()
    encoder, whole = session(folder / "encoder.onnx"), session(folder / "model.onnx")
    alone = histories[:1, : max(1, int((histories[0] >= 0).sum()))]
    found = encoder.run(["hidden"], {"history": histories})[0]
    parts = [
        _difference(found, hidden),
        _difference(encoder.run(["hidden"], {"history": alone})[0], hidden[:1]),
    ]
    result = {"hidden": max(parts), "scores": 0.0, "histories": len(histories)}
    k = min(_TOP, len(recommender.catalogue))
    for start in range(0, len(histories), 64):
        part = histories[start : start + 64]
        expected = model.score(grid[start : start + 64]).numpy()
        for exclude in (False, True):
            feeds = {"history": part, "k": np.array(k), "exclude_seen": np.array(exclude)}
            items, scores = whole.run(["items", "scores"], feeds)
            if exclude:
                _forget_seen(expected, part)
            result["scores"] = max(result["scores"], _answer_difference(items, scores, expected))
    worst = max(result["hidden"], result["scores"])
    if not worst <= TOLERANCE:
        raise RunError(
            f"the ONNX graphs differ from the student by {worst:.3g} (hidden {result['hidden']:.3g}, scores "
            f"{result['scores']:.3g}). Allowed: up to {TOLERANCE:g}. Nothing was written; check the versions of onnx "
            "and onnxruntime with: recdistill doctor"
        )
    return result


def _forget_seen(scores: npt.NDArray[Any], histories: Ints) -> None:
    rows, places = np.nonzero(histories >= 0)
    scores[rows, histories[rows, places]] = -np.inf


def _answer_difference(items: Ints, scores: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return how far the k best are from the k best of the expected scores, in place and in score.

    Items whose scores are equal to rounding may change places, so that scores are compared place by place, and the
    score of each item that was named with its own.
    """
    best = -np.sort(-expected, axis=1)[:, : items.shape[1]]
    own = np.take_along_axis(expected, items, axis=1)
    return max(_difference(scores, best), _difference(scores, own))


def _difference(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    if found.shape != expected.shape or not np.array_equal(np.isneginf(found), np.isneginf(expected)):
        return float("inf")
    real = ~np.isneginf(expected)
    size = max(1.0, float(np.abs(expected[real]).max(initial=0)))
    return float(np.abs(found[real] - expected[real]).max(initial=0)) / size
