"""Item text as vectors: any encoder by folder or name, or TF-IDF that needs nothing; and whitening.

Whitening: ``E_w = (E - μ) U (S + ε)^(-1/2) [U^T]`` with U, S from the covariance of the rows that have text
(Huang et al., "WhitenRec"; Su et al., arXiv 2103.15316). Vectors of language models share a large mean and
live on few directions; a linear reader learns from them only after this. PCA keeps the first `rank`
directions; ZCA turns them back into the encoder's own axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, MissingExtraError
from recdistill.runs import atomic_file, file_checksum, fingerprint

Floats = npt.NDArray[np.float32]
TFIDF = "tfidf"


@dataclass(frozen=True, eq=False)
class ItemText:
    """Text vectors of the I items.

    Attributes
    ----------
    vectors
        ``(I, D)`` float32 as the encoder gave them; zero where an item has no text.
    has_text
        ``(I,)`` bool.
    encoder
        The encoder's name, for manifests.
    """

    vectors: Floats
    has_text: npt.NDArray[np.bool_]
    encoder: str

    @property
    def missing(self) -> int:
        """How many items have no text."""
        return int((~self.has_text).sum())

    def whitened(
        self,
        rank: int | None = None,
        *,
        kind: Literal["pca", "zca"] = "pca",
        eps: float = 1e-3,
        even: bool = True,
    ) -> Floats:
        """Return ``(I, rank)`` (PCA) or ``(I, D)`` (ZCA) whitened vectors; see `whiten`.

        With `even` every item's vector is brought to the length ``√rank`` (the root mean square of whitened
        vectors), so that items with rare words do not outweigh the others in every product.
        """
        white = whiten(self.vectors, self.has_text, rank, kind=kind, eps=eps)
        if not even:
            return white
        norms = np.linalg.norm(white, axis=1, keepdims=True)
        width = min(rank or white.shape[1], white.shape[1])
        return np.asarray(white * (width**0.5 / np.where(norms > 0, norms, 1)), dtype=np.float32)


def encode_text(
    titles: Sequence[str],
    encoder: str = TFIDF,
    *,
    size: int = 256,
    batch_size: int = 128,
    cache: Path | None = None,
) -> ItemText:
    """Turn titles into vectors. Items without a title get a zero vector and are counted.

    Parameters
    ----------
    titles
        I texts, empty where there is none.
    encoder
        ``tfidf`` (word 1-2-grams and truncated SVD: offline, seconds), or the folder or the name of a
        sentence-transformers or Hugging Face encoder.
    size
        D of ``tfidf``, at most; other encoders have their own.
    batch_size
        Titles at a time in an encoder network.
    cache
        A folder where vectors are kept by the hash of titles and encoder, or None.

    Raises
    ------
    ConfigError
        No item has a title, or the encoder cannot be loaded.
    MissingExtraError
        The encoder needs a package that is not installed.
    """
    texts = [title.strip() for title in titles]
    has_text = np.array([bool(text) for text in texts], dtype=bool)
    if not has_text.any():
        raise ConfigError(
            f"none of the {len(texts)} items has a title, so there is no text to encode. Use a teacher "
            "without text: recdistill teach graph --encoder none"
        )
    path = None if cache is None else cache / f"{_key(texts, encoder, size)}.safetensors"
    if path is not None and path.is_file():
        return ItemText(_read(path), has_text, encoder)
    known = [text for text in texts if text]
    found = _tfidf(known, size) if encoder == TFIDF else _network(known, encoder, batch_size)
    vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
    vectors[has_text] = found
    if path is not None:
        _write(path, vectors)
    return ItemText(vectors, has_text, encoder)


def encode_further(
    titles: Sequence[str], further: Sequence[str], encoder: str, *, size: int = 256, batch_size: int = 128
) -> Floats:
    """Turn further titles into the vectors that they would have had among `titles`.

    Parameters
    ----------
    titles
        What was encoded before. ``tfidf`` takes its words from them; other encoders do not look at them.
    further
        n titles, none of them empty.
    encoder, size, batch_size
        As for `encode_text`.

    Raises
    ------
    ConfigError
        The encoder cannot be loaded.
    """
    if encoder != TFIDF:
        return _network(list(further), encoder, batch_size)
    known = [title.strip() for title in titles if title.strip()]
    return _tfidf(known, size, list(further))


def whiten(
    vectors: Floats,
    has_text: npt.NDArray[np.bool_],
    rank: int | None = None,
    *,
    kind: Literal["pca", "zca"] = "pca",
    eps: float = 1e-3,
) -> Floats:
    """Centre the vectors and give every kept direction the same variance.

    Parameters
    ----------
    vectors
        ``(I, D)``.
    has_text
        ``(I,)``; the other rows neither count nor change: they stay zero.
    rank
        Directions that are kept, largest variance first; None: all that carry variance.
    kind
        ``pca`` gives ``rank`` columns, ``zca`` gives D.
    eps
        Added to the variances, as a share of their mean: a floor under directions that are mostly noise.

    Raises
    ------
    ConfigError
        `rank`, `kind` or `eps` is out of range.
    """
    mean, matrix = whitening_of(vectors, has_text, rank, kind=kind, eps=eps)
    result = np.zeros((len(vectors), matrix.shape[1]), dtype=np.float32)
    result[has_text] = (vectors[has_text].astype(np.float64) - mean) @ matrix
    return result


def whitening_of(
    vectors: Floats,
    has_text: npt.NDArray[np.bool_],
    rank: int | None = None,
    *,
    kind: str = "pca",
    eps: float = 1e-3,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean ``(D,)`` and the matrix ``(D, rank)`` (ZCA: ``(D, D)``) of `whiten`, for further vectors.

    Parameters are those of `whiten`.

    Raises
    ------
    ConfigError
        `rank`, `kind` or `eps` is out of range.
    """
    limit = vectors.shape[1]
    if kind not in ("pca", "zca") or not eps >= 0 or (rank is not None and not 1 <= rank <= limit):
        raise ConfigError(
            f"whitening with kind={kind!r}, rank={rank}, eps={eps} is not possible. Allowed: pca or zca, rank 1 to "
            f"{limit} (the encoder's width), eps from 0. Pass --rank {min(128, limit)}."
        )
    known = vectors[has_text].astype(np.float64)
    mean = known.mean(0)
    centred = known - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / max(1, len(known)))
    variance, axes = np.maximum(variance[::-1], 0), axes[:, ::-1]  # largest first
    kept = int((variance > 1e-10 * variance[0]).sum())
    kept = max(1, min(kept, rank or limit))
    # An eigenvector's sign is arbitrary; this makes two machines agree.
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(limit)] < 0, -1, 1)
    scale = 1 / np.sqrt(variance[:kept] + eps * variance.mean() + np.finfo(np.float64).tiny)
    matrix = axes[:, :kept] * scale  # (D, rank)
    if kind == "zca":
        matrix = matrix @ axes[:, :kept].T  # (D, D)
    return mean, matrix


def _tfidf(texts: list[str], size: int, further: list[str] | None = None) -> Floats:
    """Return ``(n, ≤ size)`` TF-IDF of word 1-2-grams, reduced by truncated SVD; of `further` texts if given."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32
    )
    try:
        table = words.fit_transform(texts)
    except ValueError:
        raise ConfigError(
            f"the {len(texts)} titles hold no word (the first: {texts[0]!r}). Letters or digits are needed: "
            "check the titles, or pass --encoder with another encoder."
        ) from None
    width = min(size, *table.shape)
    asked = table if further is None else words.transform(further)
    if width == table.shape[1]:
        return np.asarray(asked.toarray(), dtype=np.float32)
    svd = TruncatedSVD(width, random_state=0)
    reduced = svd.fit_transform(table)
    return np.asarray(reduced if further is None else svd.transform(asked), dtype=np.float32)


def _network(texts: list[str], encoder: str, batch_size: int) -> Floats:
    """Return the vectors of a sentence-transformers encoder, or mean-pooled ones of a Hugging Face model."""
    if find_spec("sentence_transformers") is None and find_spec("transformers") is None:
        raise MissingExtraError("sentence-transformers", "embed")
    encode = _mean_pooled if find_spec("sentence_transformers") is None else _sentence_transformer
    try:
        return encode(texts, encoder, batch_size)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the encoder {encoder!r} cannot be loaded ({reason}). Allowed: tfidf, a folder with a "
            "sentence-transformers or Hugging Face encoder, or its name on the hub. Try --encoder tfidf."
        ) from error


def _sentence_transformer(texts: list[str], encoder: str, batch_size: int) -> Floats:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(encoder, trust_remote_code=False)
    return np.asarray(
        model.encode(texts, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True),
        dtype=np.float32,
    )


def _mean_pooled(texts: list[str], encoder: str, batch_size: int) -> Floats:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(encoder, trust_remote_code=False, dtype=torch.float32).eval().to(device)
    order = np.argsort([len(text) for text in texts], kind="stable")  # little padding
    parts = []
    for start in range(0, len(texts), batch_size):
        batch = [texts[i] for i in order[start : start + batch_size]]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt").to(
            device
        )
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state  # (B, T, D)
        mask = tokens["attention_mask"].unsqueeze(-1)
        parts.append(((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy())
    vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate(parts)
    return vectors


def _key(texts: list[str], encoder: str, size: int) -> str:
    """Return the cache key: titles and encoder, a folder by the checksums of its files."""
    folder = Path(encoder)
    if encoder == TFIDF:
        identity = f"{TFIDF} {size}"
    elif folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
        identity = " ".join(f"{path.relative_to(folder)} {file_checksum(path)}" for path in files)
    else:
        identity = encoder
    return fingerprint(identity, *texts)[:32]


def _read(path: Path) -> Floats:
    from safetensors.numpy import load_file

    return np.asarray(load_file(path)["vectors"], dtype=np.float32)


def _write(path: Path, vectors: Floats) -> None:
    from safetensors.numpy import save_file

    with atomic_file(path) as temporary:
        save_file({"vectors": vectors}, temporary)
