"""Several sources of evidence as one teacher: a sum of their scores, with weights learned on validation rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.teachers import base
from recdistill.teachers.blend.signals import SignalOptions, Signals
from recdistill.teachers.blend.weights import learn_weights
from recdistill.teachers.graph.scorer import push_back
from recdistill.teachers.order import ORDER, order_sensitivity

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)


class BlendTeacher:
    """A log-linear blend of signals: ``score(j) = Σ_s (w_s + e v_s) signal_s(j)``, with e the evidence of the row.

    The weights w and v are those under which the true items of validation rows are likeliest, so that each source is
    trusted as far as it is right about rows that nobody learned from: transitions where many are known, say, and titles
    where few are. The softmax of the scores is the teacher's distribution.
    Validation decides, too, whether items of the history may come before others (`BlendScorer.repeats`).

    Parameters
    ----------
    texts
        ``(I, D)`` item vectors by the name of their encoder, for the signals of text; may be empty.
    options
        How a history is read.
    scorers, without
        More signals by name, and names of those that are left out, see `Signals`.
    length
        How much of a history the signals get.
    item_embeddings
        ``(I, D)`` vectors to store for item encoders, or None.
    encoder
        The text encoder of `item_embeddings`, for the manifest.
    """

    name = "blend"

    def __init__(
        self,
        texts: Mapping[str, Floats] | None = None,
        options: SignalOptions | None = None,
        *,
        scorers: Mapping[str, base.Scorer] | None = None,
        without: Collection[str] = (),
        length: int = 50,
        item_embeddings: Floats | None = None,
        encoder: str | None = None,
    ) -> None:
        self.texts = dict(texts or {})
        self.options = options or SignalOptions()
        self.scorers = dict(scorers or {})
        self.without = tuple(without)
        self.length = length
        self.item_embeddings = item_embeddings
        self.encoder = encoder
        self.weights: dict[str, tuple[float, float]] = {}
        self.temperature = 1.0

    def scorer(self, dataset: SequenceDataset) -> BlendScorer:
        """Learn the weights, decide about repeats, and return what scores any history with both.

        Raises
        ------
        ConfigError
            A name in `without` is that of no signal.
        DataError
            Validation rows are missing, or say nothing.
        """
        signals = Signals(dataset, self.texts, self.options, self.scorers, self.without)
        self.weights = learn_weights(signals, length=self.length)
        kept = BlendScorer(signals, self.weights)
        dropped = BlendScorer(signals, self.weights, repeats=False)
        rows = base.some_rows(dataset.rows("valid"), 2048)
        return max((kept, dropped), key=lambda one: self._quality(one, dataset, rows))

    def _quality(self, scorer: BlendScorer, dataset: SequenceDataset, rows: Ints) -> float:
        return base.ndcg(base.ranks_of_rows(scorer.score_rows, dataset, rows, length=self.length)[0])

    def teach(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        *,
        top_k: int = 50,
        progress: base.Progress | None = None,
        scorer: BlendScorer | None = None,
    ) -> Knowledge:
        """Answer the rows; distances are negative log-probabilities.

        Parameters
        ----------
        dataset, rows, top_k, progress
            As for every teacher.
        scorer
            What `scorer` returned for this dataset, if it was called before.

        Raises
        ------
        ConfigError
            `top_k` is out of range.
        DataError
            Validation rows are missing, or say nothing.
        """
        scorer = self.scorer(dataset) if scorer is None else scorer
        self.temperature = base.best_temperature(
            scorer.score_rows,
            dataset,
            base.some_rows(dataset.rows("valid"), 2048),
            length=self.length,
            grid=TEMPERATURES,
        )
        facts = {
            "teacher": self.name,
            "metric": "negative_log_probability",
            "encoder": self.encoder,
            "texts": list(self.texts),
            "weights": {name: list(pair) for name, pair in self.weights.items()},
            "repeats": scorer.repeats,
            "options": asdict(self.options),
            "own_transitions": "left out of training rows, exactly, in every step",
            ORDER: order_sensitivity(scorer, dataset, length=self.length),
        }
        return base.knowledge_from_scorer(
            scorer.score_rows,
            dataset,
            rows,
            length=self.length,
            top_k=top_k,
            temperature=self.temperature,
            progress=progress,
            item_embeddings=self.item_embeddings,
            manifest=facts,
        )


def scorer_from(
    manifest: Mapping[str, Any], dataset: SequenceDataset, texts: Mapping[str, Floats]
) -> BlendScorer:
    """Return the scorer of a blend that has answered before, from the manifest of its knowledge.

    Parameters
    ----------
    manifest
        What `BlendTeacher.teach` wrote.
    dataset
        The one that it answered.
    texts
        The vectors of the encoders that the manifest names under ``texts``.

    Raises
    ------
    ConfigError
        It heard a scorer from elsewhere, which is not in the manifest.
    """
    weights = manifest["weights"]
    options = SignalOptions(**manifest["options"])
    signals = Signals(dataset, texts, options)
    foreign = sorted(set(weights) - set(signals.names))
    if foreign:
        raise ConfigError(
            f"the blend heard {', '.join(foreign)}, which its knowledge does not hold. Teach it again: "
            "recdistill teach blend"
        )
    signals.names = [name for name in signals.names if name in weights]
    pairs = {name: (float(constant), float(added)) for name, (constant, added) in weights.items()}
    return BlendScorer(signals, pairs, repeats=manifest["repeats"])


class BlendScorer:
    """The weighted sum of signals.

    Parameters
    ----------
    signals
        What is added.
    weights
        For each signal, by name, its weight and what evidence adds to it, see `learn_weights`.
    repeats
        Whether items of the history keep their scores; else they get the lowest of their row.
    """

    def __init__(
        self, signals: Signals, weights: Mapping[str, tuple[float, float]], *, repeats: bool = True
    ) -> None:
        self.signals = signals
        self.weights = weights
        self.repeats = repeats

    def __call__(self, history: Ints) -> Tensor:
        """Return ``(B, I)`` scores after each history of ``(B, L)``."""
        return self._sum(history, None)

    def score_rows(self, rows: Ints, history: Ints) -> Tensor:
        """Return ``(B, I)`` scores of dataset rows, without what a training row's own target put in."""
        return self._sum(history, rows)

    def _sum(self, history: Ints, rows: Ints | None) -> Tensor:
        total = torch.zeros(len(history), self.signals.dataset.item_count)
        evidence = self.signals.evidence(history, rows)
        for name, scores in self.signals(history, rows):
            constant, added = self.weights[name]
            total.addcmul_(scores, (constant + added * evidence)[:, None])
        if not self.repeats:
            push_back(total, history)
        return total
