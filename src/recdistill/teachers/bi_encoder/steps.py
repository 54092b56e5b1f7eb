"""What a training step of the bi-encoder looks at: rows, titles that are encoded anew, rivals.

Encoding is what costs. In a ``catalogue`` step, g titles are encoded with gradients; all other items have the vectors
of the table. The gradient that reaches those titles is that of all N training rows, estimated without bias from two
strata: the rows that name one of the titles as answer or as last item (few, and each says much), and all
others (many, and they see the titles as rivals alone). With n_s rows drawn from the N_s rows of stratum s::

    L = Σ_s N_s / (N n_s) Σ_{rows drawn} loss                                                                (1)

Were only rows of the first kind asked, every fresh title would be right most of the time, and training would
learn to tell fresh from old vectors. One pass encodes every title once, whatever the number of rows.

A ``batch`` step takes rows at random; their answers are the rivals, each expected ``1 - (1 - p_j)^(n-1)`` times among
n rows, p_j being the share of rows that it answers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recdistill.teachers.bi_encoder.loss import Step
from recdistill.teachers.bi_encoder.options import BiEncoderOptions

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Rows of a step while the encoder stands still.
HEAD_ROWS = 512


class Steps:
    """Makes the steps of a pass, the same ones for the same seed.

    Parameters
    ----------
    history
        ``(N, L)`` of the training rows, newest first.
    targets
        ``(N,)``.
    has_text
        ``(I,)`` bool; an item without a title is never encoded.
    options
        See `BiEncoderOptions`.
    seed
        Any numbers.

    Attributes
    ----------
    answers
        Items that answer a training row. Only they compete: in training, an item that is never an answer could only
        ever be wrong, and what reads like it would be pushed down with it.
    """

    def __init__(
        self,
        history: Ints,
        targets: Ints,
        has_text: npt.NDArray[np.bool_],
        options: BiEncoderOptions,
        seed: tuple[int, ...],
    ) -> None:
        self.history, self.targets, self.options, self.seed = history, targets, options, seed
        self.newest = history[:, 0]  # (N,)
        self.has_text = has_text
        counts = np.bincount(targets, minlength=len(has_text))
        self.answers = np.flatnonzero(counts)
        self.share = counts / max(1, len(targets))  # (I,)

    def parts(self, head: bool) -> list[Ints]:
        """Return what each step of a pass is about, unshuffled: rows, or titles where the catalogue competes."""
        if head:
            return self._cut(np.arange(len(self.targets)), HEAD_ROWS)
        if self.options.negatives == "batch":
            return self._cut(np.arange(len(self.targets)), max(2, self.options.titles_per_step // 2))
        return self._cut(self._titles(), self.options.titles_per_step)

    def of_pass(self, number: int, head: bool) -> list[Ints]:
        """Return what each step of a pass is about, in this pass's order."""
        generator = np.random.default_rng([*self.seed, number])
        parts = self.parts(head)
        every = generator.permutation(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        return np.split(every, np.cumsum([len(part) for part in parts])[:-1]) if parts else []

    def step(self, part: Ints, number: int, index: int, head: bool) -> Step:
        """Return step `index` of pass `number`, which is about `part`."""
        generator = np.random.default_rng([*self.seed, number, index])
        if self.options.negatives == "batch":
            return self._batch_step(part, head)
        nothing = np.empty(0, dtype=np.int64)
        rows, weights = (part, _even(part)) if head else self._strata(part, generator)
        titles = nothing if head else part
        rivals = self._rivals(titles, generator)
        none = np.empty(0, dtype=np.float32)
        return self._made(rows, weights, titles, rivals, none, len(self.answers))

    def _titles(self) -> Ints:
        """Return the titles that take part in training, as answers or as last items."""
        seen = np.union1d(self.answers, self.newest)
        return seen[self.has_text[seen]]

    def _strata(self, titles: Ints, generator: np.random.Generator) -> tuple[Ints, Floats]:
        named = np.zeros(len(self.has_text), dtype=bool)
        named[titles] = True
        near = named[self.targets] | named[self.newest]
        rows, weights = [], []
        for stratum in (np.flatnonzero(near), np.flatnonzero(~near)):
            count = min(len(stratum), max(1, self.options.step_rows // 2))
            if count:
                rows.append(generator.choice(stratum, count, replace=False))
                weights.append(np.full(count, len(stratum) / (count * len(self.targets)), dtype=np.float32))
        return np.concatenate(rows), np.concatenate(weights)

    def _rivals(self, titles: Ints, generator: np.random.Generator) -> Ints:
        """Return items that compete: a uniform sample of the answers that holds those that are encoded now.

        The titles of a step are themselves a uniform sample, so the whole is one; last items that are never an
        answer do not compete.
        """
        sample = self.options.sample
        if not 0 < sample < len(self.answers):
            return self.answers
        now = np.intersect1d(titles, self.answers)
        rest = np.setdiff1d(self.answers, now, assume_unique=True)
        return np.concatenate([now, generator.choice(rest, max(0, sample - len(now)), replace=False)])

    def _batch_step(self, rows: Ints, head: bool) -> Step:
        rivals = np.unique(self.targets[rows])
        expected = 1 - (1 - self.share[rivals]) ** max(1, len(rows) - 1)
        titles = np.empty(0, dtype=np.int64) if head else np.union1d(rivals, self.newest[rows])
        titles = titles[self.has_text[titles]]
        return self._made(rows, _even(rows), titles, rivals, expected.astype(np.float32), None)

    def _made(
        self, rows: Ints, weights: Floats, titles: Ints, rivals: Ints, expected: Floats, drawn: int | None
    ) -> Step:
        return Step(self.history[rows], self.targets[rows], weights, titles, rivals, expected, drawn)

    def _cut(self, values: Ints, size: int) -> list[Ints]:
        return [values[start : start + size] for start in range(0, len(values), size)]


def _even(rows: Ints) -> Floats:
    return np.full(len(rows), 1 / max(1, len(rows)), dtype=np.float32)
