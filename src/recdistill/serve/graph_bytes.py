"""The bytes of an ONNX graph of one node, written without the ``onnx`` package, which a serving image does not have.

The graph multiplies whole numbers: ``steps (m, n) uint8`` minus a zero point, times a constant ``(n, P) int8``, gives
``product (m, P) int32``. Field numbers are those of onnx.proto3; the encoding is Protocol Buffers' (varints,
and length-prefixed fields).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

INPUT, OUTPUT = "steps", "product"
_UINT8, _INT8, _INT32 = 2, 3, 6  # TensorProto.DataType
_IR_VERSION: Final = 8
_OPSET: Final = 13
#: A protobuf message ends at 2 GiB; larger tables are cut into several graphs.
LARGEST: Final = 1 << 30


def matmul_integer(table: npt.NDArray[np.int8], zero: int) -> bytes:
    """Return the graph.

    Parameters
    ----------
    table
        ``(n, P)`` int8, at most `LARGEST` bytes.
    zero
        Zero point of the input, 0..255.
    """
    rows, width = table.shape
    node = b"".join(_text(1, name) for name in (INPUT, "table", "zero"))
    node += _text(2, OUTPUT) + _text(4, "MatMulInteger")
    graph = (
        _part(1, node)
        + _text(2, "scores")
        + _part(5, _tensor("table", (rows, width), _INT8, table.tobytes()))
        + _part(5, _tensor("zero", (), _UINT8, bytes([zero])))
        + _part(11, _value(INPUT, _UINT8, rows))
        + _part(12, _value(OUTPUT, _INT32, width))
    )
    return _number(1, _IR_VERSION) + _part(7, graph) + _part(8, _number(2, _OPSET))


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode())


def _tensor(name: str, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, kind) + _text(8, name) + _part(9, data)


def _value(name: str, kind: int, width: int) -> bytes:
    """Return the description of a ``(m, width)`` tensor; m is open."""
    shape = _part(1, _text(2, "m")) + _part(1, _number(1, width))
    return _text(1, name) + _part(2, _part(1, _number(1, kind) + _part(2, shape)))
