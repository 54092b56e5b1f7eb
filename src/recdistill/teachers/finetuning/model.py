"""The model that is trained: with LoRA set into it and taken out again, or a copy of it; and the proof of a change.

Adapters that were saved empty have looked like trained ones before, when a library changed how it collects weights.
Such a teacher is the base model under another name, so what was saved is read back and compared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recdistill.errors import ConfigError, TrainingError
from recdistill.extras import extra
from recdistill.teachers.finetuning.options import FinetuneOptions
from recdistill.teachers.language_model.loading import LanguageModel
from recdistill.teachers.language_model.model_files import ADAPTER, load_files, quiet, with_adapter

#: Log-probabilities that differ by less count as the same.
SAME: Final = 1e-6


@contextmanager
def tunable(model: Any, method: str, options: FinetuneOptions) -> Iterator[Any]:
    """Yield the model whose parameters that require a gradient are trained; `model` is as before afterwards.

    LoRA is set into `model` itself, which would not fit into memory twice; a full training works on a copy in float32.

    Parameters
    ----------
    model
        A causal language model.
    method
        ``lora`` or ``full``.
    options
        See `FinetuneOptions`.

    Raises
    ------
    ConfigError
        The model has no layers of the names in `options`.
    MissingExtraError
        peft is not installed.
    """
    flags = _flags(model)
    tuned = (
        copy.deepcopy(model).float().requires_grad_(True) if method == "full" else _with_lora(model, options)
    )
    try:
        if options.gradient_checkpointing:
            tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            if method == "lora":
                tuned.enable_input_require_grads()
        yield tuned
    finally:
        if method == "lora":
            if options.gradient_checkpointing:
                tuned.disable_input_require_grads()
                tuned.gradient_checkpointing_disable()
            _without_lora(tuned, model, flags)
        model.eval()


def _flags(model: nn.Module) -> dict[str, bool]:
    return {name: value.requires_grad for name, value in model.named_parameters()}


def _without_lora(tuned: Any, model: nn.Module, flags: dict[str, bool]) -> None:
    """Take LoRA out of `model`, and let those parameters be trained that were before."""
    tuned.unload()
    for name, value in model.named_parameters():
        value.requires_grad_(flags[name])


def _with_lora(model: Any, options: FinetuneOptions) -> Any:
    with extra("llm"):
        import peft
    if getattr(model, "is_quantized", False):
        prepare: Any = peft.prepare_model_for_kbit_training
        model = prepare(model, use_gradient_checkpointing=options.gradient_checkpointing)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    device = next(iter(model.parameters())).device
    try:
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(options.seed)
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"LoRA cannot be set into {options.targets!r} of {type(model).__name__} ({str(error).splitlines()[0]}). "
            "Allowed: all-linear, or names of the model's linear layers. Pass --targets all-linear."
        ) from None


def save_tuned(tuned: Any, method: str, lm: LanguageModel, folder: Path) -> None:
    """Write an adapter as peft does, or a whole model with its tokenizer as transformers does."""
    with quiet():
        if method == "lora":
            tuned.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # a form with nothing filled in
        else:
            tuned.to(lm.model.dtype).save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)


@torch.inference_mode()
def first_log_probabilities(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return ``(n, V)`` float32 log-probabilities of the first token after each prompt."""
    device = next(iter(model.parameters())).device
    model.eval()
    lines = [torch.tensor([list(prompt)], device=device) for prompt in prompts]
    found = [model(input_ids=line, use_cache=False).logits[0, -1] for line in lines]
    return torch.stack(found).float().log_softmax(-1).cpu()


def prove_change(
    lm: LanguageModel, folder: Path, prompts: Sequence[Sequence[int]], before: Tensor
) -> dict[str, float]:
    """Read back what was saved and return what it changes.

    Parameters
    ----------
    lm
        The base model.
    folder
        An adapter or a whole model.
    prompts
        n token lists.
    before
        ``(n, V)`` what `first_log_probabilities` of the base model are.

    Returns
    -------
    dict
        ``changed_matrices``, and ``first_token_change``: the largest difference of a log-probability.

    Raises
    ------
    TrainingError
        A trained matrix is as before, or no answer changes.
    """
    if (folder / ADAPTER[0]).is_file():
        matrices, flags = _lora_matrices(folder), _flags(lm.model)
        adapted = with_adapter(lm.model, folder, merge=False)
        after = first_log_probabilities(adapted, prompts)
        _without_lora(adapted, lm.model, flags)
    else:
        saved, _ = load_files(str(folder), {"dtype": lm.model.dtype, "use_safetensors": True})
        saved = saved.to(lm.device)
        matrices = _differences(saved, lm.model)
        after = first_log_probabilities(saved, prompts)
    _require_all(matrices, folder)
    change = float((after - before).abs().max())
    if not change > SAME:
        raise TrainingError(
            f"the model of {folder} answers as before its training (log-probabilities of first tokens differ by "
            f"{change:.1e} at most). Training must change them: take more steps or a higher learning rate."
        )
    return {"changed_matrices": len(matrices), "first_token_change": change}


def _lora_matrices(folder: Path) -> dict[str, bool]:
    """Return for every B of the adapter, which starts at zero, whether it is anything else now."""
    tensors = load_file(folder / ADAPTER[1])
    return {name: bool(value.any()) for name, value in tensors.items() if ".lora_B." in name}


def _differences(saved: nn.Module, base: nn.Module) -> dict[str, bool]:
    """Return for every matrix whether it differs from the base model's."""
    before = dict(base.named_parameters())
    return {
        name: not torch.equal(value, before[name])
        for name, value in saved.named_parameters()
        if value.ndim > 1
    }


def _require_all(matrices: dict[str, bool], folder: Path) -> None:
    same = [name for name, changed in matrices.items() if not changed]
    if matrices and not same:
        return
    what = f"{len(same)} of {len(matrices)} are as before, {same[0]} among them" if same else "there is none"
    raise TrainingError(
        f"the adapter in {folder} is empty: of its trained matrices, {what}. Every one must differ from its start: "
        "take more steps or a higher learning rate; if that changes nothing, the installed peft does not fit."
    )
