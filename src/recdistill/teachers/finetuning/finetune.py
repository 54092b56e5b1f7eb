"""Fine-tuning of a language model: prompt with a history of titles, answer with the next title.

    L = -Σ_{t in answer and end} log p(x_t | x_{<t})          (``loss_on_prompt``: over the prompt's tokens too)

BIGRec (arXiv 2308.08434) with LoRA on few samples, or any model in full on all rows. The best parameters on validation
rows are what is saved, and what was saved is read back and proved to differ from the base model.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.sequences import Ints, SequenceDataset
from recdistill.errors import DataError
from recdistill.knowledge.store import provenance
from recdistill.runs import (
    atomic_folder,
    fingerprint,
    read_manifest,
    remove_folder,
    require_fingerprint,
    write_manifest,
)
from recdistill.teachers.finetuning.data import (
    PromptExamples,
    longest_line,
    prompt_examples,
    require_training_rows,
    rows_with_titles,
    sample_rows,
)
from recdistill.teachers.finetuning.model import first_log_probabilities, prove_change, save_tuned, tunable
from recdistill.teachers.finetuning.options import (
    FinetuneOptions,
    chosen_method,
    chosen_rate,
    parameter_count,
)
from recdistill.teachers.language_model.loading import LanguageModel
from recdistill.teachers.language_model.prompts import PromptTemplate
from recdistill.teachers.language_model.token_training import LoopOptions, OnStep, Placed, train_tokens
from recdistill.teachers.training_state import trainable
from recdistill.teachers.work_folder import finished, settings_fingerprint, work_folder

KIND: Final = "adapter"
SAMPLE: Final = "sample.parquet"
#: Prompts on which base and tuned model are compared.
_PROOF_ROWS: Final = 8


def finetune(
    lm: LanguageModel,
    dataset: SequenceDataset,
    rows: Ints,
    template: PromptTemplate,
    options: FinetuneOptions | None = None,
    out: Path | str = "adapter",
    *,
    valid_rows: Ints | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Fine-tune a model and write what was learned; `lm` itself stays as it is.

    A training that was killed goes on from ``OUT.training`` and ends with the same weights; one that was finished with
    the same settings is not done again.

    Parameters
    ----------
    lm
        The base model; quantised ones take LoRA only.
    dataset
        Where the rows come from.
    rows
        ``(n,)`` positions of training rows that may be learned from; `options` say how many of them are drawn. Those
        without a title as answer or in the history are left out and counted.
    template
        Of prompts and answers.
    options
        See `FinetuneOptions` and `PRESETS`.
    out
        Folder to write: a LoRA adapter as peft saves it, or a whole Hugging Face model; ``sample.parquet`` (the row ids
        that were learned from) and ``manifest.json``. For `load_language_model`'s ``adapter``.
    valid_rows
        ``(m,)`` positions of rows to watch the loss on; None: of the validation split. Without any, the last
        parameters are kept.
    overwrite
        Whether to start anew.
    on_step
        Called after each step with steps taken, steps in all, loss per token.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    DataError
        A row is not of train, or none has titles.
    RunError
        `out` holds something else, or its training was begun with other settings.
    TrainingError
        The loss is not finite, or nothing was learned.
    """
    options, out = options or FinetuneOptions(), Path(out)
    plan = _Plan.make(lm, dataset, rows, template, options, valid_rows)
    if not overwrite and finished(out, KIND, plan.settings) is not None:
        return out
    work = work_folder(out, plan.settings, overwrite=overwrite)
    train, valid = (_examples(lm, dataset, part, template, options) for part in (plan.sample, plan.valid))
    made, learned = tune_examples(
        lm, train, valid, options, method=plan.method, rate=plan.rate, work=work, on_step=on_step
    )
    facts = {**plan.facts(lm, dataset, template), **learned}
    with atomic_folder(out, overwrite=overwrite) as folder:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        pl.DataFrame({"row_id": dataset.row_ids[plan.sample]}).write_parquet(folder / SAMPLE)
        write_manifest(folder, KIND, facts)
    remove_folder(work)
    return out


def tune_examples(
    lm: LanguageModel,
    train: PromptExamples,
    valid: PromptExamples,
    options: FinetuneOptions,
    *,
    method: str,
    rate: float,
    work: Path,
    on_step: OnStep | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Fine-tune on examples, save what was learned, and prove that it changes the model.

    Parameters
    ----------
    lm
        The base model; stays as it is.
    train, valid
        What is learned, and what the loss is watched on (may be empty).
    options, method, rate
        As `FinetuneOptions`; ``lora`` or ``full``; the learning rate.
    work
        Where the training's state lies; one that was begun there goes on.
    on_step
        As in `finetune`.

    Returns
    -------
    tuple
        The folder in `work` with the adapter or model, and what its manifest should say.

    Raises
    ------
    TrainingError
        The loss is not finite, or nothing was learned.
    """
    prompts = [train.prompt(index) for index in range(min(_PROOF_ROWS, len(train)))]
    log_probabilities = first_log_probabilities(lm.model, prompts)
    watched = valid.all_batches()
    loss_before = Placed(lm.model, options.precision).mean(watched) if watched else None
    made = _emptied(work / "made")
    with tunable(lm.model, method, options) as model:
        trained = sum(value.numel() for value in trainable(model).values())
        done = train_tokens(model, train, watched, _loop(options, rate), work, on_step=on_step)
        save_tuned(model, method, lm, made)
    proof = prove_change(lm, made, prompts, log_probabilities)
    return made, {
        **proof,
        "trained_parameters": trained,
        "tokens": len(train.tokens),
        "valid_loss_before": loss_before,
        "valid_loss": done.best_loss,
        "train_loss": done.history[-1]["train"],
        "steps": done.step,
        "best_step": done.best_step,
        "history": done.history,
    }


def in_sft_sample(dataset: SequenceDataset, folder: Path | str) -> npt.NDArray[np.bool_]:
    """Return ``(R,)`` whether the adapter in `folder` was trained on each row.

    Raises
    ------
    RunError
        `folder` is no adapter folder.
    FingerprintError
        It was made from another dataset.
    DataError
        It names a row that is not in the dataset.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, KIND)
    require_fingerprint(str(manifest.get("dataset_fingerprint")), dataset.fingerprint, folder)
    found = np.zeros(len(dataset.row_ids), dtype=np.bool_)
    found[dataset.positions_of(pl.read_parquet(folder / SAMPLE)["row_id"].to_numpy())] = True
    return found


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is trained on which rows; `sample` and `valid` are positions."""

    method: str
    rate: float
    sample: Ints
    valid: Ints
    offered: int
    untitled: int
    settings: dict[str, Any]

    @classmethod
    def make(
        cls,
        lm: LanguageModel,
        dataset: SequenceDataset,
        rows: Ints,
        template: PromptTemplate,
        options: FinetuneOptions,
        valid_rows: Ints | None,
    ) -> _Plan:
        require_training_rows(dataset, rows)
        titled = rows_with_titles(dataset, rows, options.last_items)
        if not len(titled):
            raise DataError(
                f"none of the {len(rows):,} rows has a title as its answer and in its history, so there is nothing to "
                "learn to write. Titles are needed: make the dataset anew with its item file (recdistill data)."
            )
        sample = sample_rows(titled, options.samples, options.seed)
        watched = dataset.rows("valid") if valid_rows is None else valid_rows
        watched = rows_with_titles(dataset, watched, options.last_items)
        valid = sample_rows(watched, options.valid_rows, options.seed) if options.valid_rows else watched[:0]
        method = chosen_method(options.method, lm.model)
        rate = chosen_rate(options, method, lm.model)
        settings = {
            **asdict(options),
            "method": method,
            "learning_rate": rate,
            "model": lm.fingerprint,
            "template": template.fingerprint,
            "sample": fingerprint(dataset.row_ids[sample].tobytes()),
            "valid": fingerprint(dataset.row_ids[valid].tobytes()),
            **provenance(dataset),
        }
        return cls(method, rate, sample, valid, len(rows), len(rows) - len(titled), settings)

    def facts(self, lm: LanguageModel, dataset: SequenceDataset, template: PromptTemplate) -> dict[str, Any]:
        """Return what the manifest says about model and rows."""
        return {
            "fingerprint": settings_fingerprint(self.settings),
            "settings": self.settings,
            "base": lm.base,
            "base_name": lm.name,
            "base_weights": lm.weights,
            "base_fingerprint": lm.fingerprint,
            "method": self.method,
            "prompt": asdict(template),
            "parameters": parameter_count(lm.model),
            "rows_offered": self.offered,
            "rows_without_titles": self.untitled,
            "rows_in_sample": len(self.sample),
            "valid_rows": len(self.valid),
            **provenance(dataset),
        }


def _examples(
    lm: LanguageModel,
    dataset: SequenceDataset,
    rows: Ints,
    template: PromptTemplate,
    options: FinetuneOptions,
) -> PromptExamples:
    return prompt_examples(
        lm,
        dataset,
        rows,
        template,
        last_items=options.last_items,
        max_tokens=longest_line(lm, options.max_tokens),
        loss_on_prompt=options.loss_on_prompt,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
    )


def _loop(options: FinetuneOptions, rate: float) -> LoopOptions:
    return LoopOptions(
        epochs=options.epochs,
        learning_rate=rate,
        warmup_steps=options.warmup_steps,
        decay="linear",
        weight_decay=options.weight_decay,
        gradient_clip=options.gradient_clip,
        patience=options.patience,
        precision=options.precision,
        seed=options.seed,
    )


def _emptied(folder: Path) -> Path:
    """Return a new empty folder: what a killed run left in it may be half written."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
