"""What each student computes, as ONNX operators: the hidden state at the last item of each history.

Each function mirrors ``Student.last`` in evaluation mode, with the same symbols. The names of the weights are those
of the student's ``state_dict``, after a prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import nn

from recdistill.errors import ConfigError
from recdistill.export.graph import Graph
from recdistill.students import Caser, GRU4Rec, SASRec, Student, Twin
from recdistill.students.layers import CausalAttention, FeedForward
from recdistill.students.sasrec import PaperBlock


@dataclass(frozen=True)
class Steps:
    """Names of what every student asks of the histories in a graph.

    Attributes
    ----------
    embedded
        ``(B, L', d)`` float32 item vectors, zero at the pads.
    lengths
        ``(B, 1)`` int64 items of each history, at least 1.
    width
        ``(1,)`` int64, L'.
    pads
        ``(B, 1, L')`` bool, True where there is no item.
    """

    embedded: str
    lengths: str
    width: str
    pads: str


def student_graph(graph: Graph, student: Student, steps: Steps, prefix: str) -> str:
    """Append a student's nodes and return the name of its ``(B, H)`` hidden states.

    Raises
    ------
    ConfigError
        There is no graph for this student.
    """
    for kind, build in _BUILDERS.items():
        if type(student) is kind:
            return build(graph, student, steps, prefix)
    raise ConfigError(
        f"student {type(student).__name__} has no ONNX graph. Allowed: "
        f"{', '.join(sorted(kind.__name__ for kind in _BUILDERS))}. Train one with: recdistill distill --student sasrec"
    )


def _take_last(graph: Graph, values: str, steps: Steps) -> str:
    """Return ``(B, n)`` of ``(B, L', n)``."""
    last = graph.add("Sub", steps.lengths, graph.constant([1]))  # (B, 1)
    return str(graph.add("GatherND", values, last, batch_dims=1))


def _gru4rec(graph: Graph, student: GRU4Rec, steps: Steps, prefix: str) -> str:
    value = graph.add("Transpose", steps.embedded, perm=[1, 0, 2])  # (L', B, d)
    lengths = graph.add("Cast", graph.add("Squeeze", steps.lengths, graph.constant([1])), to=6)  # int32
    last = ""
    for layer in range(student.gru.num_layers):
        arrays = [graph.array(f"{prefix}gru.{part}_l{layer}") for part in _GRU_PARTS]
        weights = [graph.weight(f"{prefix}gru{layer}", _gates(array)[None]) for array in arrays[:2]]
        bias = np.concatenate([_gates(array) for array in arrays[2:]])[None]  # (1, 6 d)
        states, final = graph.add(
            "GRU",
            value,
            *weights,
            graph.weight(f"{prefix}gru{layer}", bias),
            lengths,
            outputs=2,
            hidden_size=student.hidden_size,
            linear_before_reset=1,
        )
        value = graph.add("Squeeze", states, graph.constant([1]))  # (L', B, d)
        last = graph.add("Squeeze", final, graph.constant([0]))  # (B, d)
    return _norm(graph, student.norm, last, f"{prefix}norm")


_GRU_PARTS: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _gates(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring torch's gates (reset, update, new) into the order of ONNX (update, reset, new)."""
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])


def _norm(graph: Graph, norm: nn.Module, value: str, name: str) -> str:
    return graph.layer_norm(value, name, norm.eps) if isinstance(norm, nn.LayerNorm) else value


def _caser(graph: Graph, student: Caser, steps: Steps, prefix: str) -> str:
    missing = graph.add("Sub", graph.constant([student.max_length]), steps.width)
    amounts = graph.add("Concat", graph.constant([0]), missing, axis=0)
    padded = graph.add("Pad", steps.embedded, amounts, "", graph.constant([1]))  # (B, L, d)
    image = graph.add("Transpose", padded, perm=[0, 2, 1])  # (B, d, L)
    parts = []
    for place in range(len(student.horizontal)):
        name = f"{prefix}horizontal.{place}"
        found = graph.add("Conv", image, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"))
        parts.append(graph.add("ReduceMax", graph.add("Relu", found), graph.constant([2]), keepdims=0))
    vertical = graph.add("Relu", graph.linear(image, f"{prefix}vertical"))  # (B, d, 1)
    parts.append(graph.add("Squeeze", vertical, graph.constant([2])))
    joined = str(graph.add("Concat", *parts, axis=1))
    return graph.linear(joined, f"{prefix}dense") if isinstance(student.dense, nn.Linear) else joined


def _sasrec(graph: Graph, student: SASRec, steps: Steps, prefix: str) -> str:
    positions = graph.add(
        "Slice", graph.weight(f"{prefix}positions"), graph.constant([0]), steps.width, graph.constant([0])
    )  # (L', d)
    scaled = steps.embedded
    if student.scale != 1:
        scaled = graph.add("Mul", scaled, graph.constant(student.scale, np.float32))
    hidden = graph.add("Add", scaled, positions)
    mask = _causal_mask(graph, student.max_length, steps) if len(student.blocks) > 1 else ""
    for number, block in enumerate(student.blocks):
        name = f"{prefix}blocks.{number}."
        paper = isinstance(block, PaperBlock)
        final = number == len(student.blocks) - 1
        normed = graph.layer_norm(hidden, f"{name}attention_norm", block.attention_norm.eps)  # type: ignore
        memory = hidden if paper else normed
        attention: CausalAttention = block.attention  # type: ignore[assignment]
        if final:
            query, residual = _take_last(graph, normed, steps), _take_last(graph, hidden, steps)
            mixed = _last_attention(graph, attention, query, memory, steps, f"{name}attention.")
        else:
            query, residual = normed, hidden
            mixed = _attention(graph, attention, normed, memory, mask, f"{name}attention.")
        hidden = _after(graph, block, query if paper else residual, mixed, name)
    return graph.layer_norm(hidden, f"{prefix}final_norm", student.final_norm.eps)


def _after(graph: Graph, block: nn.Module, residual: str, mixed: str, name: str) -> str:
    """Append the feed-forward half of a block."""
    hidden = graph.add("Add", residual, mixed)
    normed = graph.layer_norm(hidden, f"{name}forward_norm", block.forward_norm.eps)  # type: ignore
    forward: FeedForward = block.feed_forward  # type: ignore[assignment]
    inner = graph.add(forward.activation.capitalize(), graph.linear(normed, f"{name}feed_forward.expand"))
    outer = graph.linear(inner, f"{name}feed_forward.contract")
    if isinstance(block, PaperBlock):
        total = graph.add("Add", normed, outer)
        return graph.layer_norm(total, f"{name}output_norm", block.output_norm.eps)
    return str(graph.add("Add", hidden, outer))


def _causal_mask(graph: Graph, length: int, steps: Steps) -> str:
    """Return ``(L', L')`` zeros, and −∞ where a position would see a later one."""
    whole = np.triu(np.full((length, length), -np.inf, dtype=np.float32), 1)
    stop = graph.add("Concat", steps.width, steps.width, axis=0)
    return str(
        graph.add("Slice", graph.weight("mask", whole), graph.constant([0, 0]), stop, graph.constant([0, 1]))
    )


def _attention(
    graph: Graph, attention: CausalAttention, queries: str, memory: str, mask: str, name: str
) -> str:
    """Return ``(B, L', d)`` mixtures of all positions."""
    size, heads = attention.size, attention.heads
    weight, bias = graph.array(f"{name}projection.weight"), graph.array(f"{name}projection.bias")
    parts = []
    for place, source in enumerate((queries, memory, memory)):
        rows = slice(place * size, (place + 1) * size)
        scale = (size // heads) ** -0.5 if place == 0 else 1.0
        product = graph.add("MatMul", source, graph.weight(name, (weight[rows] * np.float32(scale)).T))
        value = graph.add("Add", product, graph.weight(name, bias[rows] * np.float32(scale)))
        value = graph.add("Reshape", value, graph.constant([0, 0, heads, size // heads]))
        parts.append(graph.add("Transpose", value, perm=[0, 2, 3, 1] if place == 1 else [0, 2, 1, 3]))
    query, key, value = parts
    scores = graph.add("Add", graph.add("MatMul", query, key), mask)  # (B, h, L', L')
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    mixed = graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = str(graph.add("Reshape", mixed, graph.constant([0, 0, size])))
    return _output(graph, attention, joined, name)


def _last_attention(
    graph: Graph, attention: CausalAttention, query: str, memory: str, steps: Steps, name: str
) -> str:
    """Return ``(B, d)`` for one query a row; see `CausalAttention.last` for why the maps change sides."""
    size, heads = attention.size, attention.heads
    split = (3, heads, size // heads)
    weight_q, weight_k, weight_v = graph.array(f"{name}projection.weight").reshape(*split, size)
    bias_q, _, bias_v = graph.array(f"{name}projection.bias").reshape(split)
    scale = np.float32((size // heads) ** -0.5)
    flat = (weight_q * scale).reshape(size, size).T
    projected = graph.add("MatMul", query, graph.weight(name, flat))
    projected = graph.add("Add", projected, graph.weight(name, (bias_q * scale).reshape(size)))
    projected = _per_head(graph, projected, weight_k, [0, heads, size // heads], name)  # (B, h, d)
    scores = graph.add("MatMul", projected, graph.add("Transpose", memory, perm=[0, 2, 1]))  # (B, h, L')
    scores = graph.add("Where", steps.pads, graph.constant(-np.inf, np.float32), scores)
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), memory)  # (B, h, d)
    mixed = _per_head(graph, mixed, weight_v.transpose(0, 2, 1), None, name)  # (B, h, d / h)
    mixed = graph.add("Add", mixed, graph.weight(name, bias_v))
    return _output(graph, attention, str(graph.add("Reshape", mixed, graph.constant([0, size]))), name)


def _per_head(graph: Graph, value: str, weight: npt.NDArray[Any], shape: list[int] | None, name: str) -> str:
    """Return ``(B, h, m)``: the ``(B, h, n)`` value times an ``(n, m)`` matrix of its own for each head."""
    if shape is not None:
        value = graph.add("Reshape", value, graph.constant(shape))
    turned = graph.add("Transpose", value, perm=[1, 0, 2])  # (h, B, n)
    product = graph.add("MatMul", turned, graph.weight(name, weight))
    return str(graph.add("Transpose", product, perm=[1, 0, 2]))


def _output(graph: Graph, attention: CausalAttention, value: str, name: str) -> str:
    return graph.linear(value, f"{name}output") if isinstance(attention.output, nn.Linear) else value


def _twin(graph: Graph, student: Twin, steps: Steps, prefix: str) -> str:
    halves = graph.add("Split", steps.embedded, graph.constant(student.sizes), outputs=2, axis=2)
    hidden = []
    for name, half in zip(("first", "second"), halves, strict=True):
        part = Steps(half, steps.lengths, steps.width, steps.pads)
        hidden.append(student_graph(graph, getattr(student, name), part, f"{prefix}{name}."))
    return str(graph.add("Concat", *hidden, axis=1))


_BUILDERS: Final[dict[type[Student], Callable[[Graph, Any, Steps, str], str]]] = {
    Caser: _caser,
    GRU4Rec: _gru4rec,
    SASRec: _sasrec,
    Twin: _twin,
}
