"""A pretrained text encoder, tuned until the text of a history finds the text of the next item, as a teacher.

The model is that of `bi_encoder_model`. A teacher that ranks rows it was trained on repeats their answers, so it is
cross-fitted: sequences are dealt into F folds, one model is trained without each, and a training row is answered
by the model that never saw its sequence; valid and test rows are answered by the mean of the F scores. Tuning an
encoder F times is dear: with one fold a single model is trained on a share of the sequences and answers the
training rows of the others; the ids of the rows it was trained on are kept in `SAMPLE`.

Queries and items of all models are brought into one space without loss (`item_head_space`). The scores of all
models are divided by one temperature, the likeliest on validation rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.row_files import write_row_ids
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import provenance
from recdistill.teachers import base
from recdistill.teachers.answer_time import clocked
from recdistill.teachers.bi_encoder.answers import TrainedModels
from recdistill.teachers.bi_encoder.model import BiEncoder
from recdistill.teachers.bi_encoder.options import BiEncoderOptions
from recdistill.teachers.bi_encoder.training import BiEncoderTraining
from recdistill.teachers.folds import fold_of_row
from recdistill.teachers.order import ORDER, order_sensitivity
from recdistill.teachers.text.tower import TextTower
from recdistill.teachers.text.tower_loading import choose_trained
from recdistill.teachers.training_state import trainable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Beside the knowledge: ids of the rows that the one model was trained on.
SAMPLE: Final = "in_sft_sample.parquet"

#: What the scores may be divided by; the first that is likeliest on validation rows is taken.
TEMPERATURES: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)

_SHARD_ROWS = 8192
_VALID_ROWS = 2048

#: ``(model's name, round, steps done, steps of the round, loss)`` after each training step.
OnStep = Callable[[str, str, int, int, float], None]


@dataclass(frozen=True, eq=False)
class Share:
    """One model's part of the work.

    Attributes
    ----------
    name
        Of its folder in ``models/``.
    train
        ``(n,)`` positions of the rows it is trained on.
    weight
        ``(R,)`` how much of each row's answer is its own, 0 to 1.
    """

    name: str
    train: Ints
    weight: Floats


class BiEncoderTeacher:
    """The cross-fitted bi-encoder teacher.

    Parameters
    ----------
    tower
        The encoder, e.g. from `load_text_tower`; its trained parameters are chosen here.
    options
        See `BiEncoderOptions`.
    seed
        Of folds, order and samples.
    """

    name = "bi-encoder"

    def __init__(self, tower: TextTower, options: BiEncoderOptions | None = None, *, seed: int = 0) -> None:
        self.options, self.seed = options or BiEncoderOptions(), seed
        self.tower = tower
        choose_trained(tower, self.options.tune, layers=self.options.layers, rank=self.options.lora_rank)
        self._built: tuple[BiEncoder, dict[str, Tensor], Tensor] | None = None

    def folds(self, dataset: SequenceDataset) -> Ints:
        """Return ``(R,)`` the fold of each row, 0..F-1; with one fold 0 for the sequences trained on, else 1."""
        if self.options.folds > 1:
            return fold_of_row(dataset, self.options.folds, seed=self.seed)
        count = len(dataset.offsets) - 1
        place = np.random.default_rng(self.seed).permutation(count)  # (U,)
        chosen = place < max(1, round(self.options.train_share * count))
        return np.where(chosen[dataset.row_sequences], 0, 1)

    def shares(self, dataset: SequenceDataset) -> list[Share]:
        """Return for each model what it is trained on and what it answers.

        Raises
        ------
        ConfigError
            A model would have no training row.
        """
        train = dataset.rows("train", prefixes=True)
        taught = np.zeros(len(dataset.row_ids), dtype=bool)
        taught[train] = True
        fold_of, folds = self.folds(dataset), self.options.folds  # (R,)
        if folds == 1:
            trained = taught & (fold_of == 0)
            answers = np.ones(len(taught)) if self.options.answer_trained else ~trained
            shares = [Share("sample", np.flatnonzero(trained), answers.astype(np.float32))]
        else:
            own = [np.where(taught, fold_of == fold, 1 / folds) for fold in range(folds)]
            shares = [
                Share(f"fold-{fold}", train[fold_of[train] != fold], part.astype(np.float32))
                for fold, part in enumerate(own)
            ]
        if any(not len(share.train) for share in shares):
            raise ConfigError(
                f"dataset {dataset.name!r} has {len(train):,} training rows, too few for {folds} models. Each needs "
                "one or more: see the counts with recdistill data stats, or pass --folds 1 --train-share 1."
            )
        return shares

    def teach(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        *,
        out: Path | str,
        top_k: int = 50,
        progress: base.Progress | None = None,
        on_step: OnStep | None = None,
    ) -> Knowledge:
        """Train what is not trained yet, answer what is not answered yet, and write the knowledge folder.

        ``query_embeddings @ item_embeddings.T``, plus ρ for the items of the history, are the scores: queries are
        kept in float16, and the answers are those of the rounded queries.

        Parameters
        ----------
        dataset
            Its training rows train the models, its valid rows pick their rounds.
        rows
            ``(N,)`` positions, ascending. With one fold, those that were trained on are passed over.
        out
            The knowledge folder; the models stay in its ``models/``. One that was begun with the same settings is
            continued.
        top_k
            K, items kept of each row.
        progress
            Called with the rows answered.
        on_step
            Hears how training goes.

        Raises
        ------
        KnowledgeError
            The folder was begun with other settings.
        ConfigError
            An option does not fit, no item has a title, or no row is left to answer.
        """
        top_k = base.check_range(dataset, top_k, 1.0)
        shares = self.shares(dataset)
        asked = rows[sum(share.weight[rows] for share in shares) > 0]
        if not len(asked):
            raise ConfigError(
                f"the model was trained on all {len(rows):,} rows that it is asked about. Allowed: rows that it has "
                "not seen. Pass --folds 2, a smaller --train-share, or --answer-trained."
            )
        writer = ShardWriter(out, dataset.item_count, {**self._facts(dataset), "top_k": top_k})
        models, reached = self._trained(dataset, shares, Path(out), on_step)
        weight = np.stack([share.weight for share in shares], 1)  # (R, F)
        for start in range(0, len(asked), _SHARD_ROWS):
            part = asked[start : start + _SHARD_ROWS]
            if len(writer.pending(dataset.row_ids[part])):
                with clocked(out, len(part)):
                    known = models.answer(dataset, part, weight[part], top_k)
                writer.append(known.row_ids, **known.fields)
            if progress is not None:
                progress(len(part))
        if self.options.folds == 1:
            write_row_ids(Path(out) / SAMPLE, dataset.row_ids[shares[0].train])
        length = self.options.last_items
        order = order_sensitivity(models.scores, dataset, length=length, seed=self.seed)
        writer.manifest = {**writer.manifest, "models": reached, ORDER: order}
        return writer.finish(models.table.numpy())

    def scorer(self, dataset: SequenceDataset, out: Path | str) -> base.Scorer:
        """Return the mean scores of the models in a folder that `teach` wrote.

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
        return self._trained(dataset, self.shares(dataset), Path(out), None)[0].scores

    def _trained(
        self, dataset: SequenceDataset, shares: list[Share], out: Path, on_step: OnStep | None
    ) -> tuple[TrainedModels, dict[str, Any]]:
        """Return the models, trained now or before, and what each reached."""
        tables, repeats = [], []
        reached: dict[str, Any] = {}
        folders = [out / "models" / share.name for share in shares]
        for number, (share, folder) in enumerate(zip(shares, folders, strict=True)):
            model = self._fresh(dataset)
            hear = None if on_step is None else _named(on_step, share.name)
            training = BiEncoderTraining(
                model, dataset, share.train, folder, seed=(self.seed, number), on_step=hear
            )
            reached[share.name] = training.fit()
            tables.append(model.table().detach().cpu())
            repeats.append(float(model.repeat.detach()))
        models = TrainedModels(self._fresh(dataset), folders, tables, repeats)
        rows = base.some_rows(dataset.rows("valid"), _VALID_ROWS)
        if len(rows):
            models.temperature = base.best_temperature(
                base.plain(models.scores), dataset, rows, length=self.options.last_items, grid=TEMPERATURES
            )
            reached["temperature"] = models.temperature
        return models, reached

    def _fresh(self, dataset: SequenceDataset) -> BiEncoder:
        """Return the model as pretrained. It is built once: titles are tokenised and first encoded once."""
        if self._built is None:
            titles = dataset.catalogue.titles
            if not any(title.strip() for title in titles):
                raise ConfigError(
                    f"none of the {len(titles):,} items has a title. A bi-encoder reads titles: make the dataset with "
                    "them, or use a teacher without text: recdistill teach graph --encoder none"
                )
            model = BiEncoder(self.tower, titles, self.options)
            start = {name: value.detach().clone() for name, value in trainable(model).items()}
            self._built = model, start, model.vectors.clone()
        model, start, vectors = self._built
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(start[name])
        model.vectors = vectors.clone()
        return model

    def _facts(self, dataset: SequenceDataset) -> dict[str, Any]:
        """Return what the answers depend on, for the manifest."""
        options = self.options
        rule = "training rows by the model without their sequence's fold; others by the mean of all"
        if options.folds == 1:
            rule = f"one model, trained on the rows in {SAMPLE}, which it " + (
                "answers too" if options.answer_trained else "does not answer"
            )
        return {
            "teacher": self.name,
            "metric": "dot",
            "distance": "negative_log_probability",
            "model": self.tower.name,
            "model_fingerprint": self.tower.identity,
            "pooling": self.tower.pooling,
            "max_tokens": self.tower.max_tokens,
            "precision": "bf16" if self.tower.bf16 else "float32",
            "seed": self.seed,
            "options": asdict(options),
            "cross_fitting": rule,
            "repeats": f"a trained constant is added for the last {options.last_items} items; vectors are without it",
            "source": "10.1145/3298689.3346996",
            **provenance(dataset),
        }


def _named(on_step: OnStep, name: str) -> Callable[[str, int, int, float], None]:
    return lambda *heard: on_step(name, *heard)
