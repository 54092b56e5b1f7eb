"""The files of a language model: what is read, how, and what identifies it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from recdistill.errors import ConfigError, unknown_name
from recdistill.extras import extra
from recdistill.runs import MANIFEST, file_checksum, read_json

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
Quantize = Literal["8bit", "4bit"]
QUANTIZATIONS: Final = ("8bit", "4bit")
#: Files that decide what a model computes; everything else in a folder is description.
CONTENT: Final = (
    "config.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
ADAPTER: Final = ("adapter_config.json", "adapter_model.safetensors")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own, which small files do not need."""
    from transformers.utils import logging as library

    logging: Any = library
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def usable_device(device: str | None) -> str:
    """Return the device, or the first GPU, or the CPU, after trying it.

    Raises
    ------
    ConfigError
        It cannot be used.
    """
    import torch

    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {wanted!r} cannot be used ({str(error).splitlines()[0]}). Allowed: cpu, and cuda where a GPU is "
            "there. Pass --device cpu."
        ) from None
    return wanted


def load_options(dtype: str, device: str, quantize: str | None) -> dict[str, Any]:
    """Return what `from_pretrained` gets besides the name."""
    import torch

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    on_cpu = torch.device(device).type == "cpu"
    kept: Any = ("float32" if on_cpu else "auto") if dtype == "auto" else dtype
    options: dict[str, Any] = {
        "dtype": kept if kept == "auto" else getattr(torch, kept),
        "use_safetensors": True,
    }
    if quantize is not None:
        options |= {"quantization_config": _quantization(quantize, on_cpu), "device_map": {"": device}}
    return options


def _quantization(quantize: str, on_cpu: bool) -> Any:
    import torch

    if quantize not in QUANTIZATIONS:
        raise unknown_name("quantization", quantize, QUANTIZATIONS)
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError:
        raise ConfigError(
            f"--quantize {quantize} needs bitsandbytes, which is not installed. Allowed without it: no --quantize. "
            "Install it (pip install bitsandbytes; it wants a CUDA GPU), or leave --quantize out."
        ) from None
    if on_cpu and quantize == "8bit":
        raise ConfigError(
            "--quantize 8bit runs on a GPU only, and this model is on the CPU. Allowed here: no --quantize. "
            "Leave --quantize out, or pass --device cuda where a GPU is there."
        )
    make: Any = BitsAndBytesConfig
    if quantize == "8bit":
        return make(load_in_8bit=True)
    return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def model_source(name_or_dir: str | Path) -> str:
    """Return the folder or the hub's name, after checking what can be checked without loading."""
    folder = Path(name_or_dir)
    if folder.is_dir():
        require_model_folder(folder)
        return str(folder)
    name = str(name_or_dir)
    if isinstance(name_or_dir, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"{name} is no folder. Allowed: a folder with config.json, or a name on the Hugging Face hub "
            "(owner/model). A small model from your own data: recdistill lm train --dataset d/ --out lm/"
        )
    return name


def require_model_folder(folder: Path) -> None:
    """Refuse a folder without ``config.json``.

    Raises
    ------
    ConfigError
        There is none.
    """
    if (folder / "config.json").is_file():
        return
    hint = (
        "It holds an adapter: pass it as --adapter, and its base model as --model."
        if is_adapter(folder)
        else "Make one with: recdistill lm train --dataset d/ --out lm/"
    )
    raise ConfigError(
        f"{folder} is no language model: it has no config.json. Allowed: a Hugging Face folder (config.json, "
        f"model.safetensors, tokenizer.json), or a name on the hub. {hint}"
    )


def load_files(source: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer.

    Parameters
    ----------
    source
        From `model_source`.
    options
        From `load_options`; ``trust_remote_code`` besides, where the model's own code may run.

    Raises
    ------
    ConfigError
        It cannot be loaded.
    MissingExtraError
        transformers is not installed.
    """
    with extra("llm"):
        from transformers import AutoModelForCausalLM, AutoTokenizer
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source, trust_remote_code=options.get("trust_remote_code", False)
            )
            return AutoModelForCausalLM.from_pretrained(source, **options), tokenizer
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        tried = "its files are damaged, or of a kind that transformers does not know"
        if not Path(source).is_dir():
            tried = "it is no folder and not in the local cache, and the hub has no such name or cannot be reached"
        raise ConfigError(
            f"the language model {source!r} cannot be loaded: {tried} ({reason}). Allowed: a folder with config.json, "
            "*.safetensors and a tokenizer, or a name on the hub. Without a hub: "
            "recdistill lm train --dataset d/ --out lm/"
        ) from None


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a LoRA adapter (else it should hold a whole model)."""
    return (folder / ADAPTER[0]).is_file()


def with_adapter(model: Any, folder: Path, *, merge: bool) -> Any:
    """Return the model with a LoRA adapter, as a part of its weights or beside them.

    Raises
    ------
    ConfigError
        The adapter does not fit the model.
    """
    with extra("llm"):
        from peft import PeftModel
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _no_fit(folder, next(iter(str(error).strip().splitlines()), type(error).__name__)) from None
    return adapted.merge_and_unload().requires_grad_(True) if merge else adapted


def content_of(source: str, model: Any) -> str:
    """Return what identifies a model: checksums of a folder's files, or name and commit on the hub."""
    folder = Path(source)
    if not folder.is_dir():
        return f"{source} {getattr(model.config, '_commit_hash', None)}"
    found = sorted({path for pattern in CONTENT for path in folder.glob(pattern)})
    return " ".join(f"{path.name} {file_checksum(path)}" for path in found)


def adapter_content(folder: Path, weights: str) -> str:
    """Return what identifies an adapter, wherever its base model lay when it was trained.

    Raises
    ------
    ConfigError
        Its manifest says that it was trained on a model with other weights than `weights`.
    """
    if (folder / MANIFEST).is_file():
        trained_on = read_json(folder / MANIFEST).get("base_weights")
        if trained_on and trained_on != weights:
            raise _no_fit(folder, f"it was trained on model {trained_on[:12]}, and this is {weights[:12]}")
    config = read_json(folder / ADAPTER[0])
    config.pop("base_model_name_or_path", None)
    return f"{json.dumps(config, sort_keys=True)} {file_checksum(folder / ADAPTER[1])}"


def _no_fit(folder: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"the adapter {folder} does not fit the model ({reason}). Allowed: an adapter that was trained on this very "
        f"model. Its base stands in its {MANIFEST}: pass that as --model, or train an adapter anew."
    )
