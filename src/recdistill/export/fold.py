"""Folding: what an item encoder forms in training becomes a plain matrix, so that it costs nothing afterwards."""

from __future__ import annotations

import copy

import torch

from recdistill.item_encoders import fold as fold_encoder
from recdistill.students import SequenceModel
from recdistill.user_encoders import UserEncoder


@torch.no_grad()
def fold(model: SequenceModel) -> SequenceModel:
    """Return a copy of a model, in evaluation mode, that holds its item tables as plain matrices.

    A user encoder keeps neither texts nor their encoder, see `recdistill.user_encoders.SAVED`.

    Its logits equal those of `model` in evaluation mode to rounding, but for items that training never saw: see
    `recdistill.item_encoders.lengthened`.
    """
    table = fold_encoder(model.item_encoder)
    output = table if model.tied else fold_encoder(model.output_encoder)
    folded = SequenceModel(
        copy.deepcopy(model.student),
        table,
        output,
        bias=model.item_bias is not None,
        user_encoder=_folded_users(model.user_encoder),
    )
    if model.item_bias is not None and folded.item_bias is not None:
        folded.item_bias.copy_(model.item_bias)
    return folded.to(next(model.parameters()).device).eval()


def _folded_users(encoder: UserEncoder | None) -> UserEncoder | None:
    if encoder is None:
        return None
    was_training = encoder.training
    folded = encoder.eval().fold()
    encoder.train(was_training)
    return folded
