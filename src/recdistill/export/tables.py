"""Item tables in fewer bytes: float16, or int8 with one scale an item.

    q_i = round(e_i / s_i),   s_i = max |e_i| / 127,   ê_i = s_i q_i

An item's own scale costs four bytes and keeps rare items, whose vectors are short, as exact as the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from recdistill.errors import RunError, unknown_name

TableType = Literal["float32", "float16", "int8"]
TABLE_TYPES: Final[tuple[TableType, ...]] = ("float32", "float16", "int8")
Array = npt.NDArray[Any]


def pack_table(table: npt.NDArray[np.float32], kind: str, name: str) -> dict[str, Array]:
    """Return a table in a number format, as ``{name_table: (I, n)}`` and, for int8, ``{name_scale: (I,)}``.

    Parameters
    ----------
    table
        ``(I, n)`` float32.
    kind
        One of `TABLE_TYPES`.
    name
        ``item`` or ``input``.

    Raises
    ------
    ConfigError
        `kind` does not exist.
    RunError
        The table holds a number that is not finite, or too large for float16.
    """
    if kind not in TABLE_TYPES:
        raise unknown_name("table format", kind, TABLE_TYPES)
    if not np.isfinite(table).all():
        raise RunError(
            f"the {name} table holds {int((~np.isfinite(table)).sum())} numbers that are not finite (NaN or inf). "
            "Allowed: finite numbers. Train the run anew: recdistill distill ... --overwrite"
        )
    if kind == "float32":
        return {f"{name}_table": np.ascontiguousarray(table, dtype=np.float32)}
    if kind == "float16":
        largest = float(np.abs(table).max(initial=0))
        if largest > float(np.finfo(np.float16).max):
            raise RunError(
                f"the {name} table holds {largest:.3g}, more than float16 can. Allowed: up to 65504. "
                "Use --table float32."
            )
        return {f"{name}_table": table.astype(np.float16)}
    scale = np.abs(table).max(axis=1) / 127  # (I,)
    steps = np.rint(table / np.where(scale > 0, scale, 1)[:, None])
    return {f"{name}_table": steps.astype(np.int8), f"{name}_scale": scale.astype(np.float32)}


def unpack_table(tensors: Mapping[str, Array], name: str) -> npt.NDArray[np.float32]:
    """Return the ``(I, n)`` float32 table that `pack_table` packed."""
    table = tensors[f"{name}_table"].astype(np.float32)
    if f"{name}_scale" in tensors:
        table = table * tensors[f"{name}_scale"].astype(np.float32)[:, None]
    return table
