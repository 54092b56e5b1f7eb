"""Fine-tuning on texts: any prompt with any answer, such as a rationale that a larger model wrote.

L = -Σ_{t in answer and end} log p(x_t | x_{<t})
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from recdistill.errors import DataError
from recdistill.runs import atomic_folder, fingerprint, remove_folder, write_manifest
from recdistill.teachers.finetuning.data import PromptExamples, longest_line
from recdistill.teachers.finetuning.finetune import KIND, tune_examples
from recdistill.teachers.finetuning.options import (
    FinetuneOptions,
    chosen_method,
    chosen_rate,
    parameter_count,
)
from recdistill.teachers.language_model.loading import LanguageModel
from recdistill.teachers.language_model.token_training import OnStep
from recdistill.teachers.work_folder import finished, settings_fingerprint, work_folder

Pair = tuple[str, str]


def text_examples(lm: LanguageModel, pairs: Sequence[Pair], options: FinetuneOptions) -> PromptExamples:
    """Return prompts and answers as tokens; an answer that does not fit loses its end, and then has no end token.

    Parameters
    ----------
    lm
        Whose tokens.
    pairs
        Prompt and answer.
    options
        ``max_tokens`` of both together, and how batches are made.

    Raises
    ------
    DataError
        A prompt leaves no room for its answer.
    """
    limit = longest_line(lm, options.max_tokens)
    prompts = lm.encode_all([prompt for prompt, _ in pairs])
    answers = [[*ids, lm.eos_id] for ids in lm.encode_answers([answer for _, answer in pairs])]
    longest = max(map(len, prompts), default=0)
    if longest >= limit:
        raise DataError(
            f"a prompt has {longest} tokens, and prompt and answer together may have {limit}. Allowed: shorter "
            "prompts. Tell fewer items (most=5), or use a model that reads more."
        )
    lines = [[*prompt, *answer][:limit] for prompt, answer in zip(prompts, answers, strict=True)]
    return PromptExamples(
        tokens=np.concatenate([np.array(line, dtype=np.int32) for line in lines])
        if lines
        else np.empty(0, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int64),
        prompts=np.array([len(prompt) for prompt in prompts], dtype=np.int64),
        loss_on_prompt=options.loss_on_prompt,
        pad_id=lm.pad_id,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        seed=options.seed,
    )


def finetune_texts(
    lm: LanguageModel,
    pairs: Sequence[Pair],
    options: FinetuneOptions,
    out: Path,
    *,
    valid_share: float = 0.1,
    on_step: OnStep | None = None,
) -> Path:
    """Fine-tune a model on texts and write an adapter, or a whole model, for `load_language_model`'s ``adapter``.

    A training that was killed goes on; one that was finished with the same texts and settings is not done again.

    Parameters
    ----------
    lm
        The base model; stays as it is.
    pairs
        Prompt and answer; at least one.
    options
        How; its ``samples`` and ``valid_rows`` do not count.
    out
        Folder to write.
    valid_share
        Of the pairs, on which the loss is watched; none are held out of fewer than ten.
    on_step
        Called after each step with steps taken, steps in all, loss per token.

    Raises
    ------
    DataError
        There is no pair, or a prompt is too long.
    RunError
        `out` was made of other texts or with other settings.
    TrainingError
        The loss is not finite, or nothing was learned.
    """
    if not pairs:
        raise DataError(
            "there is no answer to learn from. At least one text of the larger model is needed: see why its answers "
            "failed, and run the same command again."
        )
    method = chosen_method(options.method, lm.model)
    rate = chosen_rate(options, method, lm.model)
    settings = {
        **asdict(options),
        "method": method,
        "learning_rate": rate,
        "model": lm.fingerprint,
        "valid_share": valid_share,
        "texts": fingerprint(*[part for pair in pairs for part in pair]),
    }
    if finished(out, KIND, settings) is not None:
        return out
    work = work_folder(out, settings)
    order = np.random.default_rng(options.seed).permutation(len(pairs))
    held = int(valid_share * len(pairs)) if len(pairs) >= 10 else 0
    valid, train = ([pairs[k] for k in sorted(part)] for part in (order[:held], order[held:]))
    made, learned = tune_examples(
        lm,
        text_examples(lm, train, options),
        text_examples(lm, valid, options),
        options,
        method=method,
        rate=rate,
        work=work,
        on_step=on_step,
    )
    facts = {
        "fingerprint": settings_fingerprint(settings),
        "settings": settings,
        "base": lm.base,
        "base_name": lm.name,
        "base_weights": lm.weights,
        "base_fingerprint": lm.fingerprint,
        "method": method,
        "parameters": parameter_count(lm.model),
        "texts": len(train),
        "valid_texts": len(valid),
        **learned,
    }
    with atomic_folder(out) as folder:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        write_manifest(folder, KIND, facts)
    remove_folder(work)
    return out
