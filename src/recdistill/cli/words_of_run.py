"""The rationales that a run was trained with, and its student over another catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recdistill.data import Catalogue
    from recdistill.export import Recommender
    from recdistill.knowledge import Words


def words_of_run(folder: Path, knowledge: Path | None = None) -> Words | None:
    """Return the rationales of a run, or those that were named; None where there are none."""
    from recdistill.config import read_config
    from recdistill.knowledge import load_words

    if knowledge is not None:
        return load_words(knowledge)
    seeds = sorted(folder.glob("seed-*/config.yaml"), key=lambda path: int(path.parent.name.split("-")[1]))
    path = next(iter(seeds), folder / "config.yaml")
    named = read_config(path).words.folder if path.is_file() else None
    return None if named is None else load_words(Path(named))


def over_texts(
    recommender: Recommender,
    items: Catalogue,
    words: Words | None,
    *,
    dataset_fingerprint: str = "",
    keep_users: bool = False,
) -> Recommender:
    """Return the recommender for other items, whose texts the encoder of the training reads.

    Raises
    ------
    ConfigError
        The student has ids, or the encoder is not known.
    """
    from recdistill.errors import ConfigError
    from recdistill.teachers.rationales import item_texts, load_encoder

    if words is None or words.folder is None:
        raise ConfigError(
            "the encoder of the training's texts is not known. Needed: the folder of rationales that the student was "
            "trained with. Pass --knowledge t/, with a student of --strategy slim-agnostic."
        )
    vectors = load_encoder(words.folder / "encoder").encode(item_texts(items))
    return recommender.over(items, vectors, dataset_fingerprint=dataset_fingerprint, keep_users=keep_users)
