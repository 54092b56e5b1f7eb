"""Folders that hold one stage's result: a manifest, a fingerprint, and writes that are whole or absent."""

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recdistill.errors import FingerprintError, RunError

MANIFEST = "manifest.json"
#: What commands write into a folder before any work is done.
_MARKS = frozenset({MANIFEST, "config.yaml", "mutual.yaml"})
SCHEMA = 1


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` when the block ends without error.

    Whoever reads `path`, or kills this process, finds the whole old folder or the whole new one. (Where the system
    cannot exchange two folders in one step, there is a moment between two renames without either.)

    Raises
    ------
    RunError
        `path` exists, is not empty, and `overwrite` is False, or `overwrite` is True and `path`
        is no folder that recdistill wrote.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not overwrite:
            raise RunError(f"{path} already exists. Choose another --out, or pass --overwrite to replace it.")
        if not (path / MANIFEST).is_file():
            raise RunError(f"{path} was not written by recdistill (no {MANIFEST}): it is not replaced.")
    path = path.resolve()  # where a link points to, also for the temporary folder: renaming stays on one disk
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if not path.exists():
            temporary.replace(path)
        elif not _exchanged(temporary, path):  # if they are, what was there goes with the temporary folder
            old = _set_aside(path)
            temporary.replace(path)
            shutil.rmtree(old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths by ``renameat2``, which Python does not offer; return whether that was possible."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <fcntl.h>, <linux/fs.h>
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # pragma: no cover - not Linux
        return False
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def remove_folder(path: Path) -> None:
    """Delete a folder, if it is there. A kill leaves it whole or gone: it is renamed before it is emptied.

    A folder that loses its manifest before its files would be in the way of the command that wrote it.
    """
    if path.exists():
        shutil.rmtree(_set_aside(path))


@contextmanager
def replaced(folder: Path, overwrite: bool) -> Iterator[None]:
    """With `overwrite`, set a folder aside while a new one is begun in its place.

    What was there is deleted at the end, and comes back if no work was done in the new one: a command that fails for
    a wrong option costs nobody the result that it was to replace.
    """
    folder = folder.resolve()
    aside = _set_aside(folder) if overwrite and folder.exists() else None
    try:
        yield
    finally:
        if aside is not None:
            worked = (path.is_file() and path.name not in _MARKS for path in folder.rglob("*"))
            if any(worked):
                shutil.rmtree(aside)
            else:
                remove_folder(folder)
                aside.replace(folder)


def _set_aside(path: Path) -> Path:
    """Move a folder to a hidden name beside it, for the caller to delete, and return that name."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        path.replace(aside)
    except OSError:  # what lies in a lower layer of a container can be emptied, but not renamed
        shutil.rmtree(path)
    return aside


def first_process() -> bool:
    """Return whether this process is alone, or the first of one ``torchrun``: the one that writes the folder."""
    return os.environ.get("RANK", "0") == "0"


def require_one_process(command: str) -> None:
    """Check that `command`, which cannot be divided, was not launched on several processes (``torchrun``).

    Raises
    ------
    RunError
        It was.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise RunError(
            f"recdistill {command} was launched on {processes} processes. Allowed: one; it does not divide its work. "
            f"Start it without torchrun: recdistill {command} ..."
        )


@contextmanager
def exclusive(folder: Path, command: str, *, divided: bool = False) -> Iterator[None]:
    """Hold a folder alone: two commands that write into one folder would spoil each other's work.

    A lock file beside the folder says so to other processes; it goes with this one, however it ends.

    Parameters
    ----------
    folder, command
        What is held, and by which command: for messages.
    divided
        Whether the command divides its work among the processes of one ``torchrun``; the first then holds the folder
        for all.

    Raises
    ------
    RunError
        Another process holds it, or a command that cannot be divided was launched on several.
    """
    if not divided:
        require_one_process(command)
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this system: nobody is kept out
        yield
        return
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            held = False
        if not held:  # or whoever held it has just taken the file away
            raise RunError(
                f"another recdistill {command} works in {folder}. Wait until it ends, or choose another --out."
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    with atomic_file(path) as temporary:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    RunError
        The file does not exist or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not valid JSON ({error}). Write the folder anew.") from None


def write_manifest(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: the folder's kind (``dataset``, ``knowledge``, ``run``...) and its content."""
    write_json(folder / MANIFEST, {"kind": kind, "schema": SCHEMA, **content})


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """Read a folder's manifest and check that it is of the wanted kind.

    Raises
    ------
    RunError
        There is no manifest, it is of another kind, or of a newer schema.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise RunError(f"{folder} is no {kind} folder: it has no {MANIFEST}.")
    manifest = read_json(path)
    found = manifest.get("kind") if isinstance(manifest, dict) else None
    if found != kind:
        raise RunError(f"{folder} is a {found!r} folder; a {kind!r} folder is needed here.")
    if manifest.get("schema") != SCHEMA:
        raise RunError(f"{path} has schema {manifest.get('schema')!r}; this version reads {SCHEMA}.")
    return dict(manifest)


def require_fingerprint(found: str, expected: str, folder: Path | str) -> None:
    """Refuse a folder that was made from another dataset.

    Raises
    ------
    FingerprintError
        The fingerprints differ.
    """
    if found != expected:
        raise FingerprintError(
            f"{folder} was made from dataset {found[:12]}, not from {expected[:12]}. "
            "Use the dataset it was made from, or make it anew (recdistill teach ... --dataset)."
        )


def fingerprint(*parts: bytes | str | memoryview) -> str:
    """Return the SHA-256 of the parts, each prefixed by its length, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name`` after checking that it does not leave the folder.

    Raises
    ------
    RunError
        `name` is absolute or climbs out of `folder`.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RunError(f"the path {name!r} leaves its folder {folder}.")
    return path
