"""A student without ids over a catalogue that training never saw: its tables are formed anew from texts."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from recdistill.item_encoders import Ids, SlimText, TextTable
from recdistill.students import SequenceModel


def text_maps_of(model: SequenceModel) -> dict[str, TextTable]:
    """Return copies of what forms a model's ``input`` and ``output`` table from texts; empty if it has ids."""
    entry, output = model.item_encoder, model.output_encoder
    if not (isinstance(entry, SlimText) and isinstance(output, SlimText)):
        return {}
    maps = {"output": copy.deepcopy(output.text_table).cpu().eval()}
    return maps if model.tied else {"input": copy.deepcopy(entry.text_table).cpu().eval(), **maps}


@torch.no_grad()
def over_texts(model: SequenceModel, maps: Mapping[str, TextTable], vectors: Tensor) -> SequenceModel:
    """Return a folded copy of a model whose tables hold other items; one without text gets a bias of minus infinity.

    Parameters
    ----------
    model
        Folded, in evaluation mode.
    maps
        As of `text_maps_of`.
    vectors
        ``(J, D)``.
    """
    device = next(model.parameters()).device
    tables = {side: Ids.from_table(made(vectors)) for side, made in maps.items()}
    output = tables["output"]
    missing = ~(vectors != 0).any(1)
    made = SequenceModel(
        copy.deepcopy(model.student),
        tables.get("input", output),
        output,
        bias=bool(missing.any()),
        user_encoder=copy.deepcopy(model.user_encoder),
    )
    if made.item_bias is not None:
        made.item_bias.masked_fill_(missing, -torch.inf)
    return made.to(device).eval()
