"""The bytes of an ONNX graph of one node, written without the ``onnx`` package, which a serving image does not have.

Both graphs multiply whole numbers. `matmul_integer`: ``steps (m, n) uint8`` minus a zero point, times a constant
``(n, P) int8``, gives ``product (m, P) int32``. `matmul_rows`: ``steps (m, n) float32``, times a constant that lies row
by row, gives ``product (m, P) float32``. Field numbers are those of onnx.proto3; the encoding is Protocol
Buffers' (varints, and length-prefixed fields).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

INPUT, OUTPUT = "steps", "product"
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # TensorProto.DataType
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


def matmul_rows(table: npt.NDArray[np.int8]) -> bytes:
    """Return a graph that reads its table once, in order, as fast as memory gives it (onnxruntime's ``MatMulNBits``).

    The operator rounds its input to 8 bits by the largest number of a row over 127; whole numbers with a largest one
    of 127 stay as they are, so that the product is exact.

    Parameters
    ----------
    table
        ``(P, n)`` int8, at most `LARGEST` bytes; n is at most 256.
    """
    count, width = table.shape
    block = block_size(width)
    stored = np.full((count, 1, block), 128, dtype=np.uint8)
    stored[:, 0, :width] = (table.view(np.uint8) ^ 0x80) if width else 0  # q + 128
    node = b"".join(_text(1, name) for name in (INPUT, "table", "scale"))
    node += _text(2, OUTPUT) + _text(4, "MatMulNBits") + _text(7, "com.microsoft")
    facts = {"K": width, "N": count, "bits": 8, "block_size": block, "accuracy_level": 4}
    node += b"".join(
        _part(5, _text(1, name) + _number(3, value) + _number(20, 2)) for name, value in facts.items()
    )
    graph = (
        _part(1, node)
        + _text(2, "scores")
        + _part(5, _tensor("table", stored.shape, _UINT8, stored.tobytes()))
        + _part(5, _tensor("scale", (count,), _FLOAT, np.ones(count, np.float32).tobytes()))
        + _part(11, _value(INPUT, _FLOAT, width))
        + _part(12, _value(OUTPUT, _FLOAT, count))
    )
    own = _text(1, "com.microsoft") + _number(2, 1)
    return _number(1, _IR_VERSION) + _part(7, graph) + _part(8, _number(2, 17)) + _part(8, own)


def block_size(width: int) -> int:
    """Return the smallest block of ``MatMulNBits`` that holds a row: 16, 32, 64, ..."""
    return max(16, 1 << (width - 1).bit_length())


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
