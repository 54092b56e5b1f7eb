"""A language model with an item head as a teacher: one forward pass scores the whole catalogue, nothing is generated.

The model is that of `item_head_model`. A teacher that ranks rows it was trained on repeats their answers, so
it is cross-fitted: sequences are dealt into F folds, one model is trained without each, and a training row is answered
by the model that never saw its sequence. Valid and test rows are answered by one more model, of all training rows.

Queries and items of all models are brought into one space without loss (`item_head_space`). The kept ranking
holds M items with -log p over the catalogue: what they leave of 1 is the other items' mass. Every model's scores are
divided by the temperature under which rows like those it answers, but not trained on, are likeliest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge import Knowledge
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import provenance
from recdistill.runs import fingerprint
from recdistill.teachers import base
from recdistill.teachers.answer_time import clocked
from recdistill.teachers.item_head.answers import answer, history_scores
from recdistill.teachers.item_head.model import ItemHeadModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.parts import SURFACE, ItemHeadParts
from recdistill.teachers.item_head.plan import Plan
from recdistill.teachers.item_head.space import joint_space
from recdistill.teachers.item_head.training import ItemHeadTraining
from recdistill.teachers.order import ORDER, order_sensitivity

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: The rows that a model is trained on, and ``(R,)`` which rows it answers.
Share = tuple[Ints, npt.NDArray[np.bool_]]

#: The model of all training rows.
FULL = "full"

_VALID_ROWS = 2048

#: ``(model's name, epoch, rows done, rows of an epoch, loss)`` after each training step.
OnStep = Callable[[str, int, int, int, float], None]


class ItemHeadTeacher:
    """The cross-fitted item-head teacher.

    Parameters
    ----------
    lm
        A `LanguageModel`, or anything with its ``name``, ``fingerprint``, ``model`` and ``encode``.
    text
        ``(I, D_t)`` item text vectors for both ends of the model, or None: items are ids alone, and items without
        training events cannot be told apart.
    options
        See `ItemHeadOptions`.
    seed
        Of start weights, folds, order and dropout.
    encoder
        Name of the text encoder, for the manifest.
    instruction
        Words in front of every history.
    """

    name = "item-head"

    def __init__(
        self,
        lm: Any,
        text: Floats | None = None,
        options: ItemHeadOptions | None = None,
        *,
        seed: int = 0,
        encoder: str | None = None,
        instruction: str = "",
    ) -> None:
        self.lm, self.text, self.seed, self.encoder = lm, text, seed, encoder
        self.instruction = instruction
        self.parts = ItemHeadParts(lm, text, options or ItemHeadOptions(), seed=seed, instruction=instruction)

    @property
    def options(self) -> ItemHeadOptions:
        """The options, with what was chosen for the language model and the dataset."""
        return self.parts.options

    def folds(self, dataset: SequenceDataset) -> Ints:
        """Return ``(U,)`` the fold of each sequence, 0..F-1."""
        count = len(dataset.offsets) - 1
        return np.random.default_rng(self.seed).permutation(count) % self.options.folds

    def shares(self, dataset: SequenceDataset) -> dict[str, Share]:
        """Return for each model the rows it is trained on, and ``(R,)`` which rows it answers."""
        train = dataset.rows("train", prefixes=True)
        if not len(train):
            raise ConfigError(
                f"dataset {dataset.name!r} has no training row. An item head is learned from training rows: see "
                "the counts with recdistill data stats."
            )
        taught = np.zeros(len(dataset.row_ids), dtype=bool)
        taught[train] = True
        if self.options.folds == 1:
            return {FULL: (train, np.ones(len(taught), dtype=bool))}
        fold_of = self.folds(dataset)[dataset.row_sequences]  # (R,)
        shares = {FULL: (train, ~taught)}
        for fold in range(self.options.folds):
            shares[f"fold-{fold}"] = (train[fold_of[train] != fold], taught & (fold_of == fold))
        return shares

    def teach(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        *,
        out: Path | str,
        top_k: int = 200,
        progress: base.Progress | None = None,
        on_step: OnStep | None = None,
    ) -> Knowledge:
        """Train what is not trained yet, answer what is not answered yet, and write the knowledge folder.

        ``query_embeddings @ item_embeddings.T`` are the scores, exactly: queries are kept in float16, and the answers
        are those of the rounded queries.

        Parameters
        ----------
        dataset
            Its training rows train the models, its valid rows pick their epochs.
        rows
            ``(N,)`` positions.
        out
            The knowledge folder; the models stay in its ``models/``. One that was begun with the same settings is
            continued.
        top_k
            M, items kept of each row.
        progress
            Called with the rows answered.
        on_step
            Hears how training goes.

        Raises
        ------
        KnowledgeError
            The folder was begun with other settings.
        ConfigError
            An option does not fit the model or the dataset.
        """
        top_k = base.check_range(dataset, top_k, 1.0)
        train = self.shares(dataset)[FULL][0]
        self.parts.choose_batch(dataset, train)
        self.parts.require_context(dataset, np.union1d(rows, train))
        writer = ShardWriter(out, dataset.item_count, {**self._facts(dataset), "top_k": top_k})
        shares = self.shares(dataset)
        heads: dict[str, Tensor] = {}
        reached: dict[str, Any] = {}
        for name in shares:
            model, result = self._trained(dataset, name, shares[name], Path(out), on_step)
            heads[name] = model.table().detach().float().cpu() / result["temperature"]
            reached[name] = {**result["best"], "temperature": result["temperature"]}
        space, table = joint_space(list(heads.values()))
        for (name, share), axes in zip(shares.items(), space, strict=True):
            asked = rows[share[1][rows]]
            left = dataset.positions_of(np.sort(writer.pending(dataset.row_ids[asked])))
            if progress is not None:
                progress(len(asked) - len(left))
            if len(left):
                model, _ = self._trained(dataset, name, share, Path(out), None)
                plan = Plan.of(dataset, self.parts.segments(dataset), asked, self.options.max_items)
                with clocked(out, len(left)):
                    answer(
                        model, plan, left, axes, table, writer, self.options, top_k=top_k, progress=progress
                    )
        cold = int((np.bincount(dataset.targets(shares[FULL][0]), minlength=dataset.item_count) == 0).sum())
        writer.manifest = {**writer.manifest, "models": reached, "items_without_training_events": cold}
        order = order_sensitivity(
            self.scorer(dataset, out), dataset, length=self.options.max_items, seed=self.seed
        )
        if order is not None:
            writer.manifest = {**writer.manifest, ORDER: order}
        return writer.finish(table.numpy())

    def scorer(self, dataset: SequenceDataset, out: Path | str) -> base.Scorer:
        """Return the scores of the model of all training rows in a folder that `teach` wrote.

        Parameters
        ----------
        dataset
            The one it was taught on.
        out
            The knowledge folder.

        Returns
        -------
        Scorer
            ``(B, L)`` histories, oldest first, `PAD` on the right, to ``(B, I)`` float32.
        """
        self.parts.choose_batch(dataset, self.shares(dataset)[FULL][0])
        model, result = self._trained(dataset, FULL, self.shares(dataset)[FULL], Path(out), None)
        table = model.table().detach().float() / result["temperature"]
        tokens = self.parts.segments(dataset)

        return lambda histories: history_scores(model, table, tokens, dataset, histories, self.options)

    def _trained(
        self, dataset: SequenceDataset, name: str, share: Share, out: Path, on_step: OnStep | None
    ) -> tuple[ItemHeadModel, dict[str, Any]]:
        """Return the model with the weights of one share, trained now or before, and its ``result.json``."""
        model = self.parts.fresh(dataset)
        tokens, length = self.parts.segments(dataset), self.options.max_items
        number = 0 if name == FULL else 1 + int(name.removeprefix("fold-"))
        valid = base.some_rows(dataset.rows("valid"), _VALID_ROWS)
        # One number fitted on training rows the model never saw says nothing about any one of them, and later
        # rows, as valid ones often are, are harder than those: their temperature would blur the knowledge.
        held_out = valid if name == FULL else base.some_rows(np.flatnonzero(share[1]), _VALID_ROWS)
        training = ItemHeadTraining(
            model,
            Plan.of(dataset, tokens, share[0], length),
            Plan.of(dataset, tokens, valid, length),
            self.options,
            out / "models" / name,
            held_out=Plan.of(dataset, tokens, held_out, length),
            seed=(self.seed, number),
            on_step=None if on_step is None else lambda *heard: on_step(name, *heard),
        )
        return model, training.fit()

    def _facts(self, dataset: SequenceDataset) -> dict[str, Any]:
        """Return what the answers depend on, for the manifest."""
        folds = self.options.folds
        rule = "training rows by the model without their sequence's fold; others by the model of all training rows"
        return {
            "teacher": self.name,
            "metric": "dot",
            "distance": "negative_log_probability",
            "model": self.lm.name,
            "model_fingerprint": self.lm.fingerprint,
            "encoder": self.encoder,
            "text_fingerprint": None if self.text is None else fingerprint(self.text.tobytes()),
            "instruction": self.instruction,
            "surface": SURFACE,
            "seed": self.seed,
            "options": asdict(self.options),
            "cross_fitting": rule if folds > 1 else "none: training rows by a model that was trained on them",
            "source": "arXiv 2312.02443",
            **provenance(dataset),
        }
