"""The two graphs of an exported recommender: history to hidden state, and history to the k best items.

``encoder.onnx``: ``history (B, L')`` → ``hidden (B, H)``. ``model.onnx``: ``history``, ``k``, ``exclude_seen`` →
``items (B, k)``, ``scores (B, k)``; of a longer history the newest L items are read, and all of it is excluded.
Tables are stored as they were packed and become float32 where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.export.graph import Graph
from recdistill.export.student_graphs import Steps, student_graph
from recdistill.students import Student
from recdistill.types import PAD

_FLOAT, _INT64 = 1, 7  # onnx.TensorProto
Array = npt.NDArray[Any]


def write_graphs(folder: Path, student: Student, weights: Mapping[str, Array], *, length: int) -> None:
    """Write ``encoder.onnx`` and ``model.onnx``.

    Parameters
    ----------
    folder
        Where to.
    student
        In evaluation mode; its structure is read, its numbers come from `weights`.
    weights
        What ``model.safetensors`` holds: ``item_table``, ``student.*`` and, where there are such, ``item_scale``,
        ``input_table``, ``input_scale``, ``item_bias``.
    length
        L.
    """
    history = ("history", "INT64", ["batch", "width"])
    graph = Graph(weights)
    graph.rename(_hidden(graph, student, "history"), "hidden")
    graph.save(folder / "encoder.onnx", [history], [("hidden", "FLOAT", ["batch", student.hidden_size])])

    graph = Graph(weights)
    hidden = _hidden(graph, student, _newest(graph, "history", length))
    scores = _without_seen(graph, _scores(graph, hidden), "history", "exclude_seen")
    count = graph.add("Reshape", "k", graph.constant([1]))
    values, items = graph.add("TopK", scores, count, outputs=2, axis=1)
    graph.rename(items, "items")
    graph.rename(values, "scores")
    graph.save(
        folder / "model.onnx",
        [history, ("k", "INT64", []), ("exclude_seen", "BOOL", [])],
        [("items", "INT64", ["batch", "k"]), ("scores", "FLOAT", ["batch", "k"])],
    )


def _hidden(graph: Graph, student: Student, history: str) -> str:
    """Return ``(B, H)`` hidden states of a history of at most L columns."""
    real = graph.add("Not", graph.add("Less", history, graph.constant(0)))  # (B, L')
    counted = graph.add("Cast", real, to=_INT64)
    lengths = graph.add("ReduceSum", counted, graph.constant([1]), keepdims=1)
    lengths = graph.add("Max", lengths, graph.constant([1]))  # an empty history is one zero vector
    width = graph.add("Shape", history, start=1, end=2)
    first_pads = graph.add("Not", graph.add("Less", _arange(graph, width), lengths))  # (B, L')
    items = graph.add("Max", history, graph.constant(0))
    name = "input" if graph.has("input_table") else "item"
    embedded = _rows(graph, name, items)
    mask = graph.add("Unsqueeze", graph.add("Cast", real, to=_FLOAT), graph.constant([2]))
    embedded = graph.add("Mul", embedded, mask)
    pads = graph.add("Unsqueeze", first_pads, graph.constant([1]))
    return student_graph(graph, student, Steps(embedded, lengths, width, pads), "student.")


def _arange(graph: Graph, width: str) -> str:
    """Return ``(L',)``: 0, 1, ..."""
    stop = graph.add("Squeeze", width, graph.constant([0]))
    return str(graph.add("Range", graph.constant(0), stop, graph.constant(1)))


def _rows(graph: Graph, name: str, items: str) -> str:
    """Return float32 rows of a packed table."""
    table = graph.weight(f"{name}_table")
    rows = str(graph.add("Gather", table, items))
    if graph.array(f"{name}_table").dtype != np.float32:
        rows = graph.add("Cast", rows, to=_FLOAT)
    if graph.has(f"{name}_scale"):
        scale = graph.add("Gather", graph.weight(f"{name}_scale"), items)
        rows = graph.add("Mul", rows, graph.add("Unsqueeze", scale, graph.constant([-1])))
    return rows


def _scores(graph: Graph, hidden: str) -> str:
    """Return ``(B, I)``. The scale of an item is put on its score: (h · q_i) s_i."""
    table = graph.weight("item_table")
    if graph.array("item_table").dtype != np.float32:
        table = graph.add("Cast", table, to=_FLOAT)
    scale = graph.has("item_scale")
    biased = graph.has("item_bias") and not scale
    bias = [graph.weight("item_bias")] if biased else []
    scores = str(graph.add("Gemm", hidden, table, *bias, transB=1))
    if scale:
        scores = graph.add("Mul", scores, graph.weight("item_scale"))
        if graph.has("item_bias"):
            scores = graph.add("Add", scores, graph.weight("item_bias"))
    return scores


def _newest(graph: Graph, history: str, length: int) -> str:
    """Return ``(B, min(L', L))``: the newest items of each history, pads on the right."""
    width = graph.add("Shape", history, start=1, end=2)
    kept = graph.add("Min", width, graph.constant([length]))
    real = graph.add("Cast", graph.add("Not", graph.add("Less", history, graph.constant(0))), to=_INT64)
    lengths = graph.add("ReduceSum", real, graph.constant([1]), keepdims=1)  # (B, 1)
    start = graph.add("Max", graph.add("Sub", lengths, kept), graph.constant([0]))
    places = graph.add("Add", start, _arange(graph, kept))  # (B, min(L', L))
    return str(graph.add("GatherElements", history, places, axis=1))


def _without_seen(graph: Graph, scores: str, history: str, exclude: str) -> str:
    """Return the scores with −∞ added at the items of the history where `exclude`; pads add 0 to item 0."""
    real = graph.add("Not", graph.add("Less", history, graph.constant(PAD + 1)))
    taken = graph.add("And", real, exclude)
    low, zero = graph.constant(-np.inf, np.float32), graph.constant(0, np.float32)
    updates = graph.add("Where", taken, low, zero)  # (B, L')
    items = graph.add("Max", history, graph.constant(0))
    return str(graph.add("ScatterElements", scores, items, updates, axis=1, reduction="add"))
