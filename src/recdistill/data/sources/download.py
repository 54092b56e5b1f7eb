"""Fetching the named public sets: checked against a known checksum, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from recdistill.errors import DataError
from recdistill.runs import atomic_file, inside

_TIMEOUT_S: Final = 30
_SITE: Final = "https://files.grouplens.org/datasets/movielens/"


class Archive(NamedTuple):
    """A zip file: where it is, and what it must hash to.

    Attributes
    ----------
    url
        Address.
    algorithm
        Of `digest`: ``md5`` is what GroupLens publishes beside each file.
    digest
        Hexadecimal.
    files
        Names of the members that are wanted.
    """

    url: str
    algorithm: str
    digest: str
    files: tuple[str, ...]


_DAT: Final = ("ratings.dat", "movies.dat", "README", "README.html")
_CSV: Final = ("ratings.csv", "movies.csv", "README.txt")

ARCHIVES: Final[dict[str, Archive]] = {
    "movielens-100k": Archive(
        _SITE + "ml-100k.zip", "md5", "0e33842e24a9c977be4e0107933c0723", ("u.data", "u.item", "README")
    ),
    "movielens-1m": Archive(_SITE + "ml-1m.zip", "md5", "c4d9eecfca2ab87c1945afe126590906", _DAT),
    "movielens-10m": Archive(_SITE + "ml-10m.zip", "md5", "ce571fd55effeba0271552578f2648bd", _DAT),
    "movielens-20m": Archive(_SITE + "ml-20m.zip", "md5", "cd245b17a1ae2cc31bb14903e1204af3", _CSV),
    "movielens-25m": Archive(_SITE + "ml-25m.zip", "md5", "6b51fb2759a8657d3bfcbfc42b592ada", _CSV),
    "movielens-32m": Archive(_SITE + "ml-32m.zip", "md5", "d472be332d4daa821edc399621853b57", _CSV),
    "movielens-latest-small": Archive(
        _SITE + "ml-latest-small.zip",
        "sha256",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        _CSV,
    ),
}


def cache_folder() -> Path:
    """Return where downloads are kept: ``$XDG_CACHE_HOME/recdistill`` or ``~/.cache/recdistill``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "recdistill"


def download(name: str, folder: Path | None = None, *, archive: Archive | None = None) -> Path:
    """Return a folder with the files of the set `name`, fetching them if they are not there yet.

    Parameters
    ----------
    name
        A key of `ARCHIVES`.
    folder
        Where to; by default below `cache_folder`.
    archive
        Instead of ``ARCHIVES[name]``: a mirror.

    Raises
    ------
    DataError
        The set cannot be fetched by itself, the network does not answer, or the file is not the right one.
        The message says what to put where by hand.
    """
    chosen = archive or ARCHIVES.get(name)
    if chosen is None:
        raise DataError(
            f"{name} cannot be fetched by itself. Pass the folder with its files: --source DIR "
            f"(without it: {', '.join(ARCHIVES)})."
        )
    target = folder or cache_folder() / name
    needed = [member for member in chosen.files if not member.startswith("README")]
    if all((target / member).is_file() for member in needed):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=target.parent) as place:
        zipped = Path(place) / "archive.zip"
        _fetch(chosen, zipped, needed, target)
        _unpack(zipped, chosen, target)
    return target


def _fetch(archive: Archive, path: Path, needed: list[str], target: Path) -> None:
    by_hand = (
        f"Fetch {archive.url} by hand and put {', '.join(needed)} into a folder, then pass --source FOLDER."
    )
    try:
        request = urllib.request.Request(archive.url, headers={"User-Agent": "recdistill"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(f"{archive.url} cannot be fetched ({error}). {by_hand}") from None
    digest = hashlib.new(archive.algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != archive.digest:
        raise DataError(
            f"{archive.url} has {archive.algorithm} {digest.hexdigest()}, not {archive.digest}: another "
            f"file, or a broken one. Nothing was kept in {target}. {by_hand}"
        )


def _unpack(zipped: Path, archive: Archive, target: Path) -> None:
    """Write the wanted members, without the folder that the archive puts them in."""
    with zipfile.ZipFile(zipped) as content:
        for member in content.infolist():
            name = PurePosixPath(member.filename).name
            if name in archive.files and not member.is_dir():
                with (
                    atomic_file(inside(target, name)) as path,
                    content.open(member) as source,
                    path.open("wb") as out,
                ):
                    shutil.copyfileobj(source, out, 1 << 20)
