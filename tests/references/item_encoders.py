"""Whitening and AlphaFuse from the eigenvectors of the covariance matrix, in double precision."""

from __future__ import annotations

import numpy as np


def whitened(vectors, kept):
    """The `kept` directions of largest variance at variance 1; rows of zeros stay out of the statistics."""
    vectors = np.asarray(vectors, np.float64)
    known = np.array([bool(np.any(row)) for row in vectors])
    mean = vectors[known].mean(0)
    covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
    for row in vectors[known]:
        covariance += np.outer(row - mean, row - mean) / known.sum()
    values, directions = np.linalg.eigh(covariance)
    order = np.argsort(-values)[:kept]
    result = np.zeros((len(vectors), kept))
    for column, k in enumerate(order):
        if values[k] > 1e-10:
            result[known, column] = (vectors[known] - mean) @ directions[:, k] / np.sqrt(values[k])
    return result


def alphafuse(vectors, ids, size, *, cover, scale):
    """Whitened text with the ids added to, or put in place of, its last columns."""
    null = ids.shape[1]
    text = whitened(vectors, size - null if cover else size)
    table = np.zeros((len(vectors), size))
    table[:, : text.shape[1]] = scale * text
    for item in range(len(vectors)):
        for column in range(null):
            table[item, size - null + column] += ids[item, column]
    return table


def up_to_signs(found, expected):
    """Turn each column of `found` to the sign of `expected`: an eigenvector has none."""
    signs = np.sign((np.asarray(found) * expected).sum(0))
    return np.asarray(found) * np.where(signs == 0, 1, signs)
