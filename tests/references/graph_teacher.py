"""The transition-graph and text score by loops, with the graph built anew without one event."""

import numpy as np


def naive_matrix(dataset, max_gap, backward, without=None):
    """``(I, I)`` A over the training events; pairs with the event `without` as an endpoint are skipped."""
    matrix = np.zeros((dataset.item_count, dataset.item_count))
    for start, end in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        for first in range(start, end):
            for second in range(first + 1, min(first + max_gap + 1, end)):
                if not dataset.train_event_mask[second] or without in (first, second):
                    continue
                i, j = dataset.events[first], dataset.events[second]
                matrix[i, j] += 1 / (second - first)
                matrix[j, i] += backward / (second - first)
    return matrix


def naive_score(matrix, history, text, options):
    """``(I,)`` eq. 1-3 for one history (oldest first, no pads)."""
    sums = matrix.sum(1, keepdims=True)
    p = np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)
    s, t = np.zeros(len(matrix)), np.zeros(len(matrix))
    for k, item in enumerate(history[::-1][: options.last_items]):
        s += options.decay**k * p[item]
        if k < options.two_hop_items:
            s += options.decay**k * options.two_hop * (p[item] @ p)
        if text is not None:
            for j, vector in enumerate(text):
                norms = np.linalg.norm(text[item]) * np.linalg.norm(vector)
                t[j] += options.decay**k * (text[item] @ vector / norms if norms else 0.0)
    score = np.sqrt(s) + options.text_weight * t
    seen = np.unique(history)
    score[seen] = score.min() + options.repeat_weight * (score[seen] - score.min())
    return score
