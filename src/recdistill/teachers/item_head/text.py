"""Item text vectors from the language model itself: the mean of a title's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.item_head.model import decoder_of, word_vectors
from recdistill.teachers.text.item_text import ItemText
from recdistill.types import PAD

_LONGEST = 64


@torch.inference_mode()
def lm_text(lm: Any, titles: Sequence[str], *, batch_tokens: int = 4096) -> ItemText:
    """Encode titles by the mean of the language model's last hidden states over the title's tokens.

    Parameters
    ----------
    lm
        A `LanguageModel`, or anything with its ``name``, ``model`` and ``encode``.
    titles
        I texts, empty where there is none.
    batch_tokens
        Tokens in one pass, padding included.

    Raises
    ------
    ConfigError
        No item has a title.
    """
    decoder = decoder_of(lm.model).eval()
    lines = [lm.encode(title.strip())[:_LONGEST] if title.strip() else [] for title in titles]
    has_text = np.array([bool(line) for line in lines], dtype=bool)
    if not has_text.any():
        raise ConfigError(
            f"none of the {len(lines)} items has a title, so there is no text to encode. Allowed without titles: "
            "--item-text none."
        )
    vectors = np.zeros((len(lines), word_vectors(decoder).shape[1]), dtype=np.float32)
    order = sorted(np.flatnonzero(has_text).tolist(), key=lambda item: len(lines[item]))
    while order:
        count = max(1, batch_tokens // len(lines[order[-1]]))  # the widest first: no batch grows beyond it
        batch, order = order[-count:], order[:-count]
        vectors[batch] = _means(decoder, [lines[item] for item in batch])
    return ItemText(vectors, has_text, f"lm:{lm.name}")


def _means(decoder: Any, lines: list[list[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ``(n, D)`` means over the tokens of n lines; pads stand on the right, where no token looks."""
    width = max(map(len, lines))
    tokens = torch.tensor([[*line, *[PAD] * (width - len(line))] for line in lines])
    tokens = tokens.to(word_vectors(decoder).device)
    known = (tokens != PAD).unsqueeze(-1)
    hidden = decoder(input_ids=tokens.clamp_min(0), use_cache=False).last_hidden_state.float()  # (n, T, D)
    means: np.ndarray[Any, np.dtype[np.float32]] = ((hidden * known).sum(1) / known.sum(1)).cpu().numpy()
    return means
