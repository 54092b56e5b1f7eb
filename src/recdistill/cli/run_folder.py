"""The folder of a run while a command trains in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.config import RunConfig

#: What a command writes before the run begins, which its manifest marks.
_CONFIGS = ("config.yaml", "mutual.yaml")


@contextmanager
def run_folder(
    folder: Path, config: RunConfig, command: str, *, overwrite: bool, divided: bool = False
) -> Iterator[None]:
    """Hold a run's folder: a new one, or one of the same config, whose run goes on.

    A run that never began, because something in its command was wrong, leaves nothing in the way of a corrected one;
    the run that it was to replace is there again.

    Parameters
    ----------
    folder, config
        Of the run.
    command
        Which works there: ``distill``, ``mutual``.
    overwrite
        Replace the run that is there.
    divided
        Whether the command divides its work among the processes of one ``torchrun``.

    Raises
    ------
    RunError
        The folder holds something else, or another command works in it.
    """
    from recdistill.errors import RecdistillError
    from recdistill.runs import MANIFEST, exclusive, replaced

    with exclusive(folder, command, divided=divided):
        _refuse_what_is_in_the_way(folder, config, command, overwrite)
        with replaced(folder, overwrite):
            place = folder.resolve()  # where a link points to
            place.mkdir(parents=True, exist_ok=True)
            try:
                yield
            except RecdistillError:
                if not (place / MANIFEST).is_file():
                    for name in _CONFIGS:
                        (place / name).unlink(missing_ok=True)
                    if not any(place.iterdir()):
                        place.rmdir()
                raise


def _refuse_what_is_in_the_way(folder: Path, config: RunConfig, command: str, overwrite: bool) -> None:
    from recdistill.config import read_config
    from recdistill.errors import RunError
    from recdistill.runs import MANIFEST, read_manifest

    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file. Choose another --out: a run is a folder.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    begun = (folder / "config.yaml").is_file()
    if overwrite:
        if not begun:
            raise RunError(
                f"{folder} was not written by recdistill {command}: it is not replaced. Choose another --out."
            )
    elif begun:
        if read_config(folder / "config.yaml") != config:
            raise RunError(
                f"{folder} holds a run with another config. Choose another --out, or pass --overwrite."
            )
    elif not (folder / MANIFEST).is_file():
        raise RunError(f"{folder} is not empty and no run folder. Choose another --out.")
    else:
        read_manifest(folder, "run")
