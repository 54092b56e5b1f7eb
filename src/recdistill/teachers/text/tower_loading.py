"""Loading a text encoder, and choosing what of it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

import torch

from recdistill.errors import ConfigError, unknown_name
from recdistill.extras import extra
from recdistill.runs import file_checksum, fingerprint
from recdistill.teachers.language_model.model_files import quiet, usable_device
from recdistill.teachers.text.tower import Pooling, TextTower, stack_of

Tune = Literal["layers", "lora", "full", "none"]
TUNES: Final[tuple[str, ...]] = ("layers", "lora", "full", "none")
PRECISIONS: Final[tuple[str, ...]] = ("auto", "float32", "bf16")


def choose_trained(tower: TextTower, tune: str, *, layers: int = 2, rank: int = 16) -> None:
    """Let the wanted parameters of a tower, and no others, ask for gradients.

    Parameters
    ----------
    tower
        Changed in place; LoRA wraps its network.
    tune
        ``layers`` (the last ones), ``lora``, ``full`` or ``none``.
    layers
        How many of the last layers.
    rank
        Of LoRA, on all linear modules, with alpha twice as large.

    Raises
    ------
    ConfigError
        The name does not exist, or the network has no layers to choose from.
    MissingExtraError
        LoRA is wanted and peft is not installed.
    """
    from recdistill.teachers.item_head.model import tuned_decoder

    if tune not in TUNES:
        raise unknown_name("tune", tune, TUNES)
    tower.first_trained = 0
    tower.network.requires_grad_(tune == "full")
    if tune == "lora":
        tower.network = tuned_decoder(tower.network, "lora", rank=rank, alpha=2 * rank, dropout=0.0).eval()
    elif tune == "layers":
        _, _, stack = stack_of(tower.network)
        tower.first_trained = max(0, len(stack) - layers)
        stack[tower.first_trained :].requires_grad_(True)


def load_text_tower(
    name_or_dir: str,
    *,
    max_tokens: int = 64,
    precision: str = "auto",
    batch_tokens: int = 2048,
    device: str | None = None,
) -> TextTower:
    """Load an encoder with the pooling that its sentence-transformers files name, else the mean.

    Parameters
    ----------
    name_or_dir
        A folder, or a name on the hub.
    max_tokens
        Longer texts lose their end.
    precision
        ``float32``, ``bf16``, or ``auto``: bf16 where the machine multiplies in it.
    batch_tokens
        Padded tokens at a time.
    device
        None: the first GPU, else the processor.

    Raises
    ------
    MissingExtraError
        transformers is not installed.
    ConfigError
        The encoder cannot be loaded, or the precision does not exist.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    with extra("embed"):
        from transformers import AutoModel, AutoTokenizer

    place = usable_device(device)
    try:
        folder, pooling = _sentence_files(name_or_dir)
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            network = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the text encoder {name_or_dir!r} cannot be loaded ({reason}). Allowed: a folder with a "
            "sentence-transformers or Hugging Face encoder, or its name where the hub can be reached. Pass --model "
            "with the folder of a downloaded encoder."
        ) from error
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    return TextTower(
        network.to(place),
        tokenizer,
        pooling=pooling,
        max_tokens=max_tokens,
        bf16=_wants_bf16(precision, place),
        batch_tokens=batch_tokens,
        name=Path(name_or_dir).name,
        identity=_identity(name_or_dir),
    )


def _sentence_files(name_or_dir: str) -> tuple[str, Pooling]:
    """Return where the transformer is and how its tokens are pooled, by the files of sentence-transformers."""
    from transformers.utils.hub import cached_file

    def read(path: str) -> Any:
        quiet = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        found = cached_file(name_or_dir, path, **quiet)
        return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))

    modules = read("modules.json") or []
    paths = {str(m.get("type", "")).rsplit(".", 1)[-1]: str(m.get("path", "")) for m in modules}
    folder = Path(name_or_dir) / paths.get("Transformer", "")
    config = read(f"{paths['Pooling']}/config.json") if "Pooling" in paths else None
    pooling: Pooling = "mean"
    mode = str((config or {}).get("pooling_mode", ""))
    if config and (config.get("pooling_mode_cls_token") or mode == "cls"):
        pooling = "cls"
    elif config and (config.get("pooling_mode_lasttoken") or mode == "lasttoken"):
        pooling = "last"
    return str(folder) if folder.is_dir() else name_or_dir, pooling


def _wants_bf16(precision: str, device: str) -> bool:
    if precision != "auto":
        return precision == "bf16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _identity(name_or_dir: str) -> str:
    """Return a hash of the encoder's files, or of its name where it comes from the hub."""
    folder = Path(name_or_dir)
    if not folder.is_dir():
        return fingerprint(name_or_dir)
    endings = (".json", ".safetensors", ".bin", ".txt", ".model")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in endings)
    return fingerprint(*(f"{path.relative_to(folder)} {file_checksum(path)}" for path in files))
