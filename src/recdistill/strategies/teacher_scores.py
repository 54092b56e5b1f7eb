"""What the teacher thinks of arbitrary items of a batch: from its list by rule, or from its vectors (spec 0.3)."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from recdistill.errors import KnowledgeError
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import not_negative, one_of
from recdistill.types import PAD, Batch, KnowledgeRows, Task

Source = Literal["list", "dot", "cosine", "l2", "squared_l2"]
SOURCES: Final = ("list", "dot", "cosine", "l2", "squared_l2")
_CHUNK_NUMBERS = 1 << 24  # gathered at a time: 64 MiB of float32


class TeacherScores(nn.Module):
    """Scores of arbitrary items; larger is better.

    Parameters
    ----------
    source
        ``"list"``: minus the distance of a listed item (minus its place where there are no distances), and
        `gap` below the worst listed one for any other. Else how the teacher's vectors of row and item are
        compared, ``embedding_metric`` in the manifest of the knowledge: ``"dot"``, ``"cosine"``, ``"l2"``,
        ``"squared_l2"`` (minus the distance).
    standardise
        Whether a row's scores are brought to mean 0 and deviation 1 over its list. Distances of language
        models have no fixed scale.
    gap
        How far an item outside the list lies below the worst listed one, at least 0, in units of the score.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    table: Tensor
    centre: Tensor

    def __init__(self, source: Source = "list", *, standardise: bool = True, gap: float = 1.0) -> None:
        super().__init__()
        one_of("teacher_scores", source, SOURCES)
        not_negative(gap=gap)
        self.source, self.standardise, self.gap = source, standardise, gap
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.register_buffer("centre", torch.empty(0), persistent=False)

    @property
    def requires(self) -> frozenset[str]:
        """Fields of the knowledge that are needed."""
        vectors = {"query_embeddings", "item_embeddings"}
        return frozenset({"ranking"} if self.source == "list" else {"ranking"} | vectors)

    def prepare(self, task: Task) -> None:
        """Take the teacher's item vectors where scores come from them.

        Raises
        ------
        KnowledgeError
            There are none.
        """
        if self.source == "list":
            return
        if task.item_embeddings is None:
            raise _missing("item_embeddings", self.source)
        vectors = task.item_embeddings.to(self.table.device, torch.float32)  # (I, D)
        # Vectors of language models share a large mean. Distances do not change without it, and lose fewer digits.
        distances = self.source in ("l2", "squared_l2")
        self.centre = vectors.mean(0) if distances else torch.zeros_like(vectors[0])
        self.table = normalize(vectors) if self.source == "cosine" else vectors - self.centre

    @torch.no_grad()
    def forward(self, batch: Batch, items: Tensor) -> Tensor:
        """Return ``(S, n)`` float32 scores of ``(S, n)`` items; 0 in rows without knowledge.

        Raises
        ------
        KnowledgeError
            The batch lacks what scores come from.
        """
        known = batch.knowledge
        if known is None or known.ranking is None:
            raise _missing("ranking", self.source)
        listed = known.ranking != PAD  # (S, K)
        inside = self._of_list(known, known.ranking, listed)  # (S, K)
        if self.source == "list":
            place = place_in(known.ranking, items)  # (S, n)
            found = inside.gather(1, place.clamp_min(0))
        else:
            found = self._compare(known, items)
        if self.standardise:
            mean, deviation = _moments(inside, listed)
            inside, found = (inside - mean) / deviation, (found - mean) / deviation
        if self.source == "list":
            worst = inside.masked_fill(~listed, torch.inf).amin(1, keepdim=True)  # (S, 1)
            found = torch.where(place == PAD, worst - self.gap, found)
        return found.masked_fill(~(known.covered & listed.any(1)).unsqueeze(1), 0.0)

    def _of_list(self, known: KnowledgeRows, ranking: Tensor, listed: Tensor) -> Tensor:
        """Return ``(S, K)`` scores of the listed items, 0 where nothing is listed."""
        if self.source != "list":
            scores = (
                self._compare(known, ranking)
                if self.standardise
                else torch.zeros(ranking.shape, device=ranking.device)
            )
        elif known.ranking_distance is not None:
            scores = -known.ranking_distance.float()
        else:
            places = torch.arange(listed.shape[1], device=listed.device, dtype=torch.float32)
            scores = -places.expand(listed.shape)
        return scores.masked_fill(~listed, 0.0)

    def _compare(self, known: KnowledgeRows, items: Tensor) -> Tensor:
        """Return ``(S, n)`` scores of the teacher's vectors, a few rows at a time."""
        queries = self.queries(known)  # (S, D)
        step = max(1, _CHUNK_NUMBERS // max(1, items.shape[1] * self.table.shape[1]))
        parts = [
            self._chunk(queries[start : start + step], items[start : start + step])
            for start in range(0, len(items), step)
        ]
        return torch.cat(parts) if parts else items.float()

    def queries(self, known: KnowledgeRows) -> Tensor:
        """Return ``(S, D)``, the teacher's vectors of the rows as they are compared with `table`.

        Raises
        ------
        KnowledgeError
            There are none.
        """
        if known.query_embeddings is None:
            raise _missing("query_embeddings", self.source)
        queries = known.query_embeddings.float() - self.centre
        return normalize(queries) if self.source == "cosine" else queries

    def catalogue(self, queries: Tensor) -> Tensor:
        """Return ``(c, I)`` scores of all items for ``(c, D)`` rows of `queries`."""
        product = queries @ self.table.T  # (c, I)
        if self.source in ("dot", "cosine"):
            return product
        squared = queries.square().sum(1, keepdim=True) + self.table.square().sum(1) - 2 * product
        return -squared.clamp_min(0).sqrt() if self.source == "l2" else -squared

    def _chunk(self, queries: Tensor, items: Tensor) -> Tensor:
        vectors = self.table[items.clamp_min(0)]  # (c, n, D)
        if self.source in ("dot", "cosine"):
            return (vectors @ queries.unsqueeze(2)).squeeze(2)
        squared = (vectors - queries.unsqueeze(1)).square().sum(2)
        return -squared.sqrt() if self.source == "l2" else -squared


def _moments(scores: Tensor, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(S, 1)`` mean and deviation over the listed items; 1 where they do not deviate."""
    count = listed.sum(1, keepdim=True).clamp_min(1)
    mean = scores.sum(1, keepdim=True) / count
    squared = ((scores - mean).square() * listed).sum(1, keepdim=True) / count
    return mean, torch.where(squared > 0, squared, 1.0).sqrt()


def _missing(name: str, source: str) -> KnowledgeError:
    return KnowledgeError(
        f"teacher scores from {source!r} need the field {name!r}, which the knowledge does not hold. Allowed: "
        "teacher_scores=list with a ranking; dot, cosine, l2, squared_l2 with query and item embeddings. "
        "See what a folder holds with: recdistill knowledge show DIR"
    )
