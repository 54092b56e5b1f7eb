"""onnxruntime sessions from bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from recdistill.extras import extra


def session(model: bytes, threads: int, shared: Mapping[str, npt.NDArray[Any]] | None = None) -> Any:
    """Return an onnxruntime session.

    Parameters
    ----------
    model
        An ONNX file's bytes.
    threads
        Of one operator.
    shared
        Constants of the graph that lie in memory already, by name: where the graph has such, they are used in place.

    Raises
    ------
    ValueError
        onnxruntime refuses the bytes.
    MissingExtraError
        onnxruntime is not installed.
    """
    with extra("serve"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A waiting thread that spins takes the processor from the requests beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Constants in other files are refused: a graph reads nothing but its own bytes.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null/none")
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in (shared or {}).items()}
    for name, value in values.items():
        options.add_initializer(name, value)
    try:
        made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise ValueError(str(error).splitlines()[0][:300]) from None
    made.kept_alive = values  # the session holds their addresses only
    if hasattr(made, "_model_bytes"):
        made._model_bytes = None  # kept for a session on another device: a second copy of all tables
    return made
