"""The graph and text heuristic as a teacher."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.knowledge import Knowledge
from recdistill.teachers import base
from recdistill.teachers.graph.scorer import GraphOptions, GraphScorer
from recdistill.teachers.graph.tuning import tune
from recdistill.teachers.order import ORDER, order_sensitivity

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TEMPERATURES = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.4)


class GraphTeacher:
    """The graph and text heuristic as a teacher.

    Parameters
    ----------
    text
        ``(I, D)`` item text vectors for the similarity of eq. 2, or None.
    options
        The weights; where `tune` is set, the start of the search.
    tune
        Whether the weights are chosen on validation rows first.
    temperature
        τ of the softmax that turns scores into distances; None: the likeliest on validation rows.
    length
        How much of a history counts as already seen for `repeat_weight`.
    item_embeddings
        ``(I, D)`` vectors to store for item encoders (the whitened text), or None.
    encoder
        Name of the text encoder, for the manifest.
    """

    name = "graph"

    def __init__(
        self,
        text: Floats | None = None,
        options: GraphOptions | None = None,
        *,
        tune: bool = False,
        temperature: float | None = None,
        length: int = 50,
        item_embeddings: Floats | None = None,
        encoder: str | None = None,
    ) -> None:
        self.text = text
        self.options = options or GraphOptions()
        self.tune = tune
        self.temperature = temperature
        self.length = length
        self.item_embeddings = item_embeddings
        self.encoder = encoder

    def scorer(self, dataset: SequenceDataset) -> GraphScorer:
        """Return what gives ``(B, I)`` scores after any ``(B, L)`` history, with the weights as they are."""
        return GraphScorer(dataset, self.text, self.options)

    def teach(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        *,
        top_k: int = 50,
        progress: base.Progress | None = None,
    ) -> Knowledge:
        """Answer the rows; distances are negative log-probabilities.

        Raises
        ------
        ConfigError
            `top_k` or the temperature is out of range.
        """
        if self.tune:
            self.options = tune(dataset, self.text, self.options, length=self.length)
        scorer = self.scorer(dataset)
        if self.temperature is None:
            valid = base.some_rows(dataset.rows("valid"), 2048)
            self.temperature = base.best_temperature(
                scorer.score_rows, dataset, valid, length=self.length, grid=TEMPERATURES
            )
        facts = {
            "teacher": self.name,
            "metric": "negative_log_probability",
            "encoder": self.encoder,
            "tuned": self.tune,
            "options": asdict(self.options),
            "own_transitions": "left out of training rows, exactly, in one and two hops",
            "source": "arXiv 2605.07125",
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
