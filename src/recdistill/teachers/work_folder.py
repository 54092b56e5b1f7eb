"""The folder beside a result in which a training is kept until it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from recdistill.errors import RunError
from recdistill.runs import MANIFEST, fingerprint, read_manifest, remove_folder, write_manifest

_KIND: Final = "training"


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able settings."""
    return fingerprint(json.dumps(settings, sort_keys=True))


def work_folder(out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Return ``OUT.training``, made if it is not there; one that was begun with the same settings is continued.

    Parameters
    ----------
    out
        The folder that will hold the result.
    settings
        JSON-able: everything that decides the result.
    overwrite
        Whether to start anew.

    Raises
    ------
    RunError
        The folder was begun with other settings, or recdistill did not write it.
    """
    folder = out.with_name(f"{out.name}.training")
    wanted = settings_fingerprint(settings)
    if folder.exists() and any(folder.iterdir()):
        begun = read_manifest(folder, _KIND)  # also before deleting: another's folder is refused
        if not overwrite and begun.get("fingerprint") != wanted:
            before = begun.get("settings") or {}
            changed = [key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)]
            raise RunError(
                f"{folder} holds a training that was begun with other settings ({', '.join(changed)}). Only one with "
                "the same settings goes on: choose another --out, or pass --overwrite to start anew."
            )
        if overwrite:
            remove_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).is_file():
        write_manifest(folder, _KIND, {"fingerprint": wanted, "settings": dict(settings)})
    return folder


def finished(out: Path, kind: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a result that was made with the same settings, or None where there is no result.

    Raises
    ------
    RunError
        `out` holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = read_manifest(out, kind)
    if manifest.get("fingerprint") != settings_fingerprint(settings):
        raise RunError(
            f"{out} was made with other settings. Choose another --out, or pass --overwrite to replace it."
        )
    return manifest
