"""From text to the vector that is grounded: the language model itself, or a sentence encoder.

BIGRec: z(text) is the last layer's hidden state, after the final norm, at the text's last token; the text is the bare
title without quotation marks, the tokenizer adds its begin token, batches are padded on the left. ``mean`` averages
the states of all tokens of the text instead. Which model reads the text matters: DLLM2Rec embeds with the untuned
model, BIGRec with the tuned one.

Vectors of decoders are anisotropic: they share a large mean and vary along few directions. `Whitening`, fitted on the
titles and applied to titles and generated texts alike, gives every direction the same weight in the distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, unknown_name
from recdistill.runs import fingerprint
from recdistill.teachers.base import Progress
from recdistill.teachers.text.item_text import encode_text, whiten

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.teachers.language_model.loading import LanguageModel

Floats = npt.NDArray[np.float32]
Pooling = Literal["last", "mean"]
POOLINGS: Final[tuple[str, ...]] = get_args(Pooling)


class TextEncoder(Protocol):
    """Texts to vectors; the vector of a text does not depend on what else is encoded.

    Attributes
    ----------
    name
        For manifests.
    fingerprint
        Changes with everything that changes a vector.
    """

    name: str
    fingerprint: str

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        """Return ``(n, D)`` float32."""
        ...


class LanguageModelEncoder:
    """The hidden states of a causal language model as text vectors.

    Parameters
    ----------
    model
        The tuned or the base model.
    pooling
        ``last`` token (BIGRec) or ``mean`` over the text's tokens.
    max_tokens
        Longer texts are cut.
    batch_tokens
        Padded tokens a batch; texts are sorted by length, so little of it is padding.

    Raises
    ------
    ConfigError
        `pooling` does not exist, or a count is below 1.
    """

    def __init__(
        self,
        model: LanguageModel,
        pooling: str = "last",
        *,
        max_tokens: int = 256,
        batch_tokens: int = 4096,
    ) -> None:
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        if max_tokens < 1 or batch_tokens < 1:
            raise ConfigError(
                f"max_tokens is {max_tokens} and batch_tokens {batch_tokens}. Allowed: from 1. Use 256 and 4096."
            )
        self.model, self.pooling = model, pooling
        self.max_tokens, self.batch_tokens = max_tokens, batch_tokens
        self.name = f"{model.name} ({pooling} token{'s' if pooling == 'mean' else ''})"
        self.fingerprint = fingerprint(model.fingerprint, pooling, str(max_tokens))

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        """Return ``(n, D)`` float32; an empty text has the vector of the begin (else the end) token alone."""
        start = [self.model.eos_id]  # where a text has no token and the tokenizer adds none
        tokens = [ids[: self.max_tokens] or start for ids in self.model.encode_all(list(texts))]
        vectors = np.zeros((len(texts), self.model.hidden_size), dtype=np.float32)
        for batch in batches([len(ids) for ids in tokens], self.batch_tokens):
            vectors[batch] = self._vectors([tokens[index] for index in batch])
            if progress is not None:
                progress(len(batch))
        return vectors

    def _vectors(self, tokens: list[list[int]]) -> Floats:
        """Return ``(B, D)`` for one batch, padded on the left; positions count from each text's first token."""
        import torch

        width = max(map(len, tokens))
        ids = torch.full((len(tokens), width), self.model.pad_id, dtype=torch.int64)
        mask = torch.zeros((len(tokens), width), dtype=torch.int64)
        for row, known in enumerate(tokens):
            ids[row, width - len(known) :] = torch.tensor(known)
            mask[row, width - len(known) :] = 1
        positions = (mask.cumsum(1) - 1).clamp_(min=0)
        given = [tensor.to(self.model.device) for tensor in (ids, mask, positions)]
        with torch.inference_mode():
            hidden = _hidden(self.model.model, *given)  # (B, T, D)
        states = hidden.float()
        if self.pooling == "last":
            return np.asarray(states[:, -1].cpu().numpy(), dtype=np.float32)
        weights = given[1].unsqueeze(-1)
        return np.asarray(((states * weights).sum(1) / weights.sum(1)).cpu().numpy(), dtype=np.float32)


class SentenceEncoder:
    """A sentence-transformers or Hugging Face encoder, as `encode_text` loads it.

    Parameters
    ----------
    name
        Folder or name of the encoder. TF-IDF is none: its vectors depend on the whole collection.

    Raises
    ------
    ConfigError
        `name` is ``tfidf``; on use, the encoder cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        if name == "tfidf":
            raise ConfigError(
                "tfidf cannot ground: its vectors depend on all texts that are encoded together. Allowed: tuned, "
                "base, mean, or the folder or name of a sentence encoder. Pass --ground-encoder tuned."
            )
        self.name = name
        self.fingerprint = fingerprint("sentence encoder", name)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        """Return ``(n, D)`` float32; zero for an empty text."""
        if not any(text.strip() for text in texts):
            texts = [*texts, "text"]  # encode_text refuses to encode nothing; only the width is wanted
            return self.encode(texts, progress)[:-1]
        found = encode_text(texts, self.name).vectors
        if progress is not None:
            progress(len(texts))
        return found


@dataclass(frozen=True, eq=False)
class Whitening:
    """The map ``x ↦ (x - mean) @ matrix`` that `whiten` applies to the rows it is fitted on.

    Attributes
    ----------
    mean
        ``(D,)`` float64.
    matrix
        ``(D, R)`` float64.
    """

    mean: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    @classmethod
    def fit(
        cls, vectors: Floats, has_text: npt.NDArray[np.bool_], rank: int | None = None, eps: float = 1e-3
    ) -> Whitening:
        """Learn the map from the items that have text.

        PCA whitening scales the axis u_j (a unit vector) by s_j. From the whitened column w_j alone,
        ``Xᵀw_j / n = var_j s_j u_j`` and ``std(w_j) = sqrt(var_j) s_j``, so that ``s_j u_j`` is the first divided by
        its own squared norm and multiplied by the square of the second.

        Parameters
        ----------
        vectors
            ``(I, D)``.
        has_text
            ``(I,)``.
        rank
            R, directions that are kept; None: all that carry variance.
        eps
            Floor under the variances, see `whiten`.
        """
        white = whiten(vectors, has_text, rank, kind="pca", eps=eps)[has_text].astype(np.float64)  # (n, R)
        known = vectors[has_text].astype(np.float64)
        mean = known.mean(0)
        cross = (known - mean).T @ white / len(known)  # (D, R)
        squared = np.square(cross).sum(0)
        matrix = cross * ((white**2).mean(0) / np.where(squared > 0, squared, 1))
        return cls(mean, matrix)

    def apply(self, vectors: npt.NDArray[Any]) -> Floats:
        """Return ``(n, R)`` float32."""
        return np.asarray((vectors - self.mean) @ self.matrix, dtype=np.float32)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield indices in batches of texts of like length, at most `budget` padded tokens (or one text) each.

    Parameters
    ----------
    lengths
        Tokens of each text.
    budget
        Longest length times count of a batch.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _hidden(model: Any, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Return ``(B, T, D)`` the last layer's states, without the work of the vocabulary head where that is possible."""
    import inspect

    find: Any = getattr(model, "get_decoder", lambda: None)
    body: Any = find()
    run = model if body is None else body
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if "position_ids" in inspect.signature(run.forward).parameters:
        given["position_ids"] = positions
    if body is not None:
        states: Tensor = run(**given).last_hidden_state
        return states
    last: Tensor = run(**given, output_hidden_states=True).hidden_states[-1]
    return last
