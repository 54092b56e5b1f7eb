"""The models that one server answers with: which one a request meets, and how a new export takes an old one's place.

A new model is read and tried beside the old one and then put in its place by one assignment, so that a request
sees the old model or the new, whole. A folder that cannot be read leaves the old model where it is. The
server writes nothing, so nothing is half-written when it is killed.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from recdistill.errors import ConfigError, MissingExtraError, RecdistillError, unknown_name
from recdistill.serve.engine import Engine
from recdistill.serve.folder import Stamp, stamp

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Seconds until a folder that could not be read is tried again though it looks the same; doubled up to a minute.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, eq=False)
class Loaded:
    """An engine, and of what it was made."""

    engine: Engine
    seen: Stamp
    loaded: str


@dataclass
class Slot:
    """The place of one model. `now` is replaced, never changed."""

    name: str
    folder: Path
    share: float
    now: Loaded
    failed: Stamp | None = None
    pause: float = _FIRST_PAUSE
    retry_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def named_folders(arguments: list[str]) -> dict[str, Path]:
    """Return name to folder of arguments such as ``rec/`` (named by the folder) or ``new=rec2/``.

    Raises
    ------
    ConfigError
        There is none, a name occurs twice, or is no plain name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        head, sign, tail = argument.partition("=")
        named = bool(sign) and NAME.fullmatch(head) is not None
        folder = Path(tail if named else argument)
        name = head if named else folder.resolve().name
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"the model name {name!r}. Allowed: letters, digits, '.', '_', '-': give one as NAME={argument}."
            )
        if name in found:
            raise ConfigError(f"two models are called {name!r}. Give one another name: {name}-2={folder}.")
        found[name] = folder
    if not found:
        raise ConfigError("no model. Allowed: one exported folder or more: recdistill serve REC.")
    return found


def shares_of(names: list[str], split: str | None) -> dict[str, float]:
    """Return the share of traffic of each model, adding up to 1, of a text such as ``old=0.9,new=0.1``.

    None: the first model answers everything. A model that `split` does not name answers only when a request
    asks for it.

    Raises
    ------
    ConfigError
        A name is unknown, or the shares are no numbers of at least 0 with a sum above 0.
    """
    if split is None:
        return {name: float(name == names[0]) for name in names}
    shares = dict.fromkeys(names, 0.0)
    for part in split.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in shares:
            raise unknown_name("model of --split", name.strip(), names)
        try:
            shares[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(
                f"--split {part!r}. Allowed: NAME=SHARE,NAME=SHARE, such as old=0.9,new=0.1."
            ) from None
    total = sum(shares.values())
    if not 0 < total < float("inf") or min(shares.values()) < 0:
        raise ConfigError(
            f"the shares of --split are {shares}. Allowed: numbers of at least 0, one of them above 0."
        )
    return {name: share / total for name, share in shares.items()}


def give_back_memory() -> None:
    """Hand what reading a folder left free to the system; glibc keeps it otherwise. Nothing where there is no glibc."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Fleet:
    """The models of a server.

    Parameters
    ----------
    folders
        Name to exported folder.
    split
        As in `shares_of`.
    threads
        Of one matrix product.
    on_reload
        Called with a model's name and ``"ok"`` or ``"failed"`` and the error after each try to take over a new export.

    Raises
    ------
    RunError
        A folder cannot be read.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        split: str | None = None,
        threads: int = 1,
        on_reload: Callable[[str, str, Exception | None], None] | None = None,
    ) -> None:
        shares = shares_of(list(folders), split)
        self.threads = threads
        self.on_reload = on_reload or (lambda name, result, error: None)
        self.slots = {
            name: Slot(name, folder, shares[name], self._load(folder)) for name, folder in folders.items()
        }

    def _load(self, folder: Path) -> Loaded:
        seen = stamp(folder)
        engine = Engine.load(folder, threads=self.threads)
        give_back_memory()
        return Loaded(engine, seen, datetime.now(UTC).isoformat(timespec="seconds"))

    def pick(self, name: str | None, key: bytes) -> Slot:
        """Return the model of that name, or by the split: the same key always meets the same model.

        Raises
        ------
        ConfigError
            There is no such model.
        """
        if name is not None:
            if name not in self.slots:
                raise unknown_name("model", name, self.slots)
            return self.slots[name]
        place = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64
        for slot in self.slots.values():
            place -= slot.share
            if place < 0:
                return slot
        return max(self.slots.values(), key=lambda slot: slot.share)

    def reload_changed(self) -> list[str]:
        """Take over the folders that were written anew; return the names of the models that changed."""
        return [slot.name for slot in self.slots.values() if self._reload(slot)]

    def _reload(self, slot: Slot) -> bool:
        with slot.lock:
            seen = stamp(slot.folder)
            if seen == slot.now.seen or not seen:
                return False
            if seen == slot.failed and time.monotonic() < slot.retry_at:
                return False
            try:
                loaded = self._load(slot.folder)
            except MissingExtraError:
                raise
            except (RecdistillError, OSError, MemoryError) as error:
                slot.pause = min(2 * slot.pause, _LONGEST_PAUSE) if seen == slot.failed else _FIRST_PAUSE
                slot.failed, slot.retry_at = seen, time.monotonic() + slot.pause
                self.on_reload(slot.name, "failed", error)
                return False
            slot.now, slot.failed = loaded, None
            self.on_reload(slot.name, "ok", None)
            return True
