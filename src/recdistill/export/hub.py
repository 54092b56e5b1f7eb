"""Exported folders on a Hugging Face Hub: safetensors, JSON, parquet, ONNX and Markdown go there and come back, and
nothing else does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from recdistill.errors import ConfigError, RunError
from recdistill.export.reading import check_files
from recdistill.extras import extra
from recdistill.runs import MANIFEST

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
#: What is read from the Hub, whatever else lies there.
_PATTERNS: Final = ["*.safetensors", "*.json", "*.parquet", "*.onnx", "*.onnx.data", "README.md"]


def require_hub() -> Any:
    """Return the module ``huggingface_hub``.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    with extra("hub"):
        import huggingface_hub
    return huggingface_hub


def push(
    folder: Path | str,
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Recommender exported by recdistill",
) -> str:
    """Upload an exported folder and return the address of the commit.

    Parameters
    ----------
    folder
        An export; its files are checked first.
    name
        ``user/name``; made if it is not there.
    private
        Whether a new one is private.
    token
        Of the Hub; None: what ``hf auth login`` kept.
    message
        Of the commit.

    Raises
    ------
    ConfigError
        The name is not of the form ``user/name``.
    RunError
        The folder is no whole export, or the Hub refused.
    """
    hub = require_hub()
    _check_name(name)
    folder = Path(folder)
    names = sorted([*check_files(folder)["files"], MANIFEST])
    try:
        api = hub.HfApi(token=token)
        api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=names, commit_message=message, repo_type="model"
        )
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        raise RunError(_refused(f"{folder} was not uploaded to {name}", error)) from error
    return str(commit)


def pull(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of the Hub's cache that holds a recommender; without a network, what was read before.

    Raises
    ------
    RunError
        There is no such recommender, or it cannot be reached.
    """
    if not _NAME.fullmatch(name):
        raise RunError(
            f"{name!r} is no folder and no name on a Hub. Allowed: a folder, or user/name. Export a run with: "
            "recdistill export r/ --out rec/"
        )
    hub = require_hub()
    try:
        found = hub.snapshot_download(name, revision=revision, token=token, allow_patterns=_PATTERNS)
    except (OSError, ValueError) as error:
        raise RunError(_refused(f"{name} cannot be read from the Hub", error)) from error
    return Path(found)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ConfigError(
            f"{name!r} is no name on a Hub. Allowed: user/name with letters, digits, '-', '_' and '.'. "
            "For example: recdistill push rec/ me/toys-recommender"
        )


def _refused(what: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{what}: {reason}. Needed: a network, the name, and for private ones or uploads a token (hf auth login, or "
        "HF_TOKEN). The address of another Hub is HF_ENDPOINT."
    )
