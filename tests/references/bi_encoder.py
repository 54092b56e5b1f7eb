"""Eq. 1 to 5 of the bi-encoder, one row and one item at a time."""

import math

import numpy as np


def unit(vector):
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


def item(model, vector, has_text=True):
    """Eq. 1."""
    if not has_text:
        return np.zeros(model.axes.shape[1])
    x = (vector - model.mean.numpy()) @ model.axes.numpy()
    return unit(x + x @ model.item_map.detach().numpy())


def pooled_query(model, table, history):
    """Eq. 2 and 3 for one history, newest first, without padding."""
    r, u, c = (p.detach().numpy() for p in (model.recency, model.key, model.near))
    z = [table[i] for i in history]
    raw = [math.exp(r[k] + u @ z[k] + c * (z[k] @ z[0])) for k in range(len(z))]
    query = model.bias.detach().numpy().copy()
    for k, vector in enumerate(z):
        spoken = raw[k] / sum(raw) * vector
        query += spoken + spoken @ model.maps.detach().numpy()[min(k, 2)]
    return query / math.exp(model.log_tau.item())


def loss(model, table, history, target, rivals, expected):
    """Eq. 5 for one row."""
    query, repeat = pooled_query(model, table, history), model.repeat.item()

    def score(j):
        return query @ table[j] + (repeat if j in history else 0)

    total = math.exp(score(target))
    total += sum(math.exp(score(j)) for j in set(history) - {target})
    for j, e in zip(rivals, expected, strict=True):
        if j != target and j not in history:
            total += math.exp(score(j)) / e
    return math.log(total) - score(target)
