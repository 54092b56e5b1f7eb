"""An ONNX graph, written node by node: the operators that are in it are those that are named in this package.

Tracing a network writes down what one call did; here each student says itself what it computes, so that batch and
length stay free, no copy of a table is made, and the graph needs neither tracer nor compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.extras import extra
from recdistill.runs import atomic_file

#: LayerNormalization came with 17, Gelu with 20; IR 9 belongs to 20.
OPSET: Final = 20
_IR: Final = 9
#: A protobuf message ends at 2 GiB; from here on the tables go to a file beside the graph.
_EXTERNAL_ABOVE: Final = 1_800_000_000

Array = npt.NDArray[Any]


def require_onnx() -> Any:
    """Return the module ``onnx``.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    with extra("export"):
        import onnx
    return onnx


class Graph:
    """Nodes and constants in the order in which they were added.

    Parameters
    ----------
    weights
        Name → array: what `weight` returns as a constant of the graph, once.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._onnx = require_onnx()
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        self._count = 0

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return the name of its output, or a list of names if it has several."""
        names = [self._name(operator.lower()) for _ in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def rename(self, value: str, name: str) -> None:
        """Give a value the name of an output of the graph."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        """Return the name of a small constant."""
        name = self._name("constant")
        self._constants[name] = np.asarray(array, dtype=dtype)
        return name

    def weight(self, name: str, part: Any = None, *, transposed: bool = False) -> str:
        """Return the name of a weight, of a derived `part` of it (an array), or of its transpose."""
        if part is not None:
            fresh = self._name(name)
            self._constants[fresh] = np.ascontiguousarray(part)
            return fresh
        label = f"{name}.T" if transposed else name
        if label not in self._constants:
            array = self._weights[name]
            self._constants[label] = np.ascontiguousarray(array.T if transposed else array)
        return label

    def array(self, name: str) -> Array:
        """Return a weight's numbers."""
        return self._weights[name]

    def has(self, name: str) -> bool:
        """Tell whether there is a weight of this name."""
        return name in self._weights

    def linear(self, value: str, name: str) -> str:
        """Return ``value @ W.T + b`` for the weights ``name.weight`` and ``name.bias``."""
        product = self.add("MatMul", value, self.weight(f"{name}.weight", transposed=True))
        return str(self.add("Add", product, self.weight(f"{name}.bias")))

    def layer_norm(self, value: str, name: str, eps: float) -> str:
        """Return the layer norm over the last axis."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return str(self.add("LayerNormalization", value, scale, bias, axis=-1, epsilon=eps))

    def save(
        self,
        path: Path,
        inputs: Sequence[tuple[str, str, Sequence[str | int]]],
        outputs: Sequence[tuple[str, str, Sequence[str | int]]],
        *,
        external_above: int = _EXTERNAL_ABOVE,
    ) -> None:
        """Check the graph and write it.

        Parameters
        ----------
        path
            File to write. Tables of more than `external_above` bytes go to ``<path>.data`` beside it.
        inputs, outputs
            Triples (name, element type such as ``"INT64"``, shape); a word in a shape is a free dimension.
        """
        onnx = self._onnx
        values = [[self._value(*one) for one in side] for side in (inputs, outputs)]
        constants = [onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        body = onnx.helper.make_graph(self._nodes, path.stem, values[0], values[1], constants)
        model = onnx.helper.make_model(
            body,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=_IR,
            producer_name="recdistill",
        )
        size = sum(array.nbytes for array in self._constants.values())
        if size > external_above:
            data = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 1 << 16}
            onnx.save_model(model, path, **data)
            onnx.checker.check_model(str(path))
            return
        onnx.checker.check_model(model)
        with atomic_file(path) as temporary:
            temporary.write_bytes(model.SerializeToString())

    def _value(self, name: str, kind: str, shape: Sequence[str | int]) -> Any:
        element = getattr(self._onnx.TensorProto, kind)
        return self._onnx.helper.make_tensor_value_info(name, element, list(shape))

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
