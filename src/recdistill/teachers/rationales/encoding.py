"""One encoder for what is written of users and of items, which can be kept and used on texts that come later.

A long text is encoded in pieces whose mean counts: an encoder that reads 256 tokens would see the beginning alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, RunError
from recdistill.runs import read_json, write_json
from recdistill.teachers.text.item_text import TFIDF, encode_text

Floats = npt.NDArray[np.float32]
_PIECE = 120  # words of a piece; sentence encoders read 256 tokens or more


class WordEncoder(Protocol):
    """Texts to vectors. An empty text has the zero vector.

    Attributes
    ----------
    name
        For manifests.
    """

    name: str

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return ``(n, D)`` float32."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_encoder` needs."""
        ...


class TfidfEncoder:
    """TF-IDF of single words and pairs, reduced by truncated SVD: fitted once, then fixed.

    Parameters
    ----------
    terms
        ``T`` terms in the order of the columns.
    idf
        ``(T,)`` their weights.
    axes
        ``(D, T)`` directions kept.
    """

    name = TFIDF

    def __init__(self, terms: Sequence[str], idf: Floats, axes: Floats) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.terms, self.axes = list(terms), axes
        self.idf = np.asarray(idf, dtype=np.float32)
        self._words = TfidfVectorizer(
            **_TERMS, vocabulary={term: place for place, term in enumerate(self.terms)}, dtype=np.float32
        )
        self._words.idf_ = self.idf

    @classmethod
    def fit(cls, texts: Sequence[str], size: int = 256, most: int = 50_000) -> TfidfEncoder:
        """Learn terms and directions from texts; those in one text alone are left out where there are many.

        Raises
        ------
        ConfigError
            The texts hold no word.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        known = [text for text in texts if text.strip()]
        words = TfidfVectorizer(**_TERMS, max_features=most, dtype=np.float32)
        try:
            table = words.fit_transform(known)
        except ValueError:
            raise ConfigError(
                f"the {len(known)} texts hold no word, so there is nothing to encode. Needed: texts with letters or "
                "digits. Look at the answers in the folder, or pass --encoder with another encoder."
            ) from None
        width = min(size, *table.shape)
        if width == table.shape[1]:
            axes = np.eye(width, dtype=np.float32)
        else:
            axes = TruncatedSVD(width, random_state=0).fit(table).components_
        return cls(words.get_feature_names_out().tolist(), words.idf_, np.asarray(axes, dtype=np.float32))

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return ``(n, D)`` float32."""
        return np.asarray(self._words.transform(list(texts)) @ self.axes.T, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write ``encoder.json`` and ``encoder.safetensors``."""
        from safetensors.numpy import save_file

        save_file({"idf": self.idf, "axes": np.ascontiguousarray(self.axes)}, folder / "encoder.safetensors")
        write_json(folder / "encoder.json", {"encoder": self.name, "terms": self.terms})


_TERMS: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True, "token_pattern": r"(?u)\b\w+\b"}


class NetworkEncoder:
    """A sentence-transformers or Hugging Face encoder, by folder or name.

    Parameters
    ----------
    name
        As for `recdistill.teachers.encode_text`.
    cache
        Folder where vectors are kept by the hash of texts and encoder, or None.
    """

    def __init__(self, name: str, cache: Path | None = None) -> None:
        self.name, self.cache = name, cache

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return ``(n, D)`` float32: the mean of the pieces of each text."""
        pieces = [in_pieces(text) for text in texts]
        owner = np.repeat(np.arange(len(texts)), [len(part) for part in pieces])
        distinct = sorted(
            {piece for part in pieces for piece in part}
        )  # the cache's key has them in one order
        if not distinct:
            distinct = ["."]  # to learn the width
        found = encode_text(distinct, self.name, cache=self.cache).vectors
        where = {piece: place for place, piece in enumerate(distinct)}
        at = np.array([where[piece] for part in pieces for piece in part], dtype=np.int64)
        sums = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
        np.add.at(sums, owner, found[at])
        counts = np.maximum(np.bincount(owner, minlength=len(texts)), 1)
        return np.asarray(sums / counts[:, None], dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write ``encoder.json``."""
        write_json(folder / "encoder.json", {"encoder": self.name})


def in_pieces(text: str) -> list[str]:
    """Return a text in pieces of some 120 words; nothing for an empty one."""
    words = text.split()
    return [" ".join(words[start : start + _PIECE]) for start in range(0, len(words), _PIECE)]


def make_encoder(name: str, texts: Sequence[str], cache: Path | None = None) -> WordEncoder:
    """Return an encoder; ``tfidf`` is fitted on the texts, any other is used as it is."""
    return TfidfEncoder.fit(texts) if name == TFIDF else NetworkEncoder(name, cache)


def load_encoder(folder: Path) -> WordEncoder:
    """Return the encoder that a folder of knowledge in words was made with.

    Raises
    ------
    RunError
        It is not there, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    said = read_json(folder / "encoder.json")
    try:
        if said["encoder"] != TFIDF:
            return NetworkEncoder(str(said["encoder"]))
        arrays = load_file(folder / "encoder.safetensors")
        return TfidfEncoder(said["terms"], arrays["idf"], arrays["axes"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the encoder in {folder} is damaged ({error}). Needed: encoder.json and encoder.safetensors as "
            "recdistill rationales wrote them. Run it again."
        ) from None
