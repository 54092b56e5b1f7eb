"""The signals of a blend by loops, and the weights by a general minimiser."""

import numpy as np
from scipy.optimize import minimize

from references.graph_teacher import naive_matrix


def naive_signals(dataset, history, texts, fields, options, without=None):
    """``{name: (I,)}`` for one history (oldest first, no pads); the event `without` never happened."""
    near = _rows_to_one(naive_matrix(dataset, 3, options.backward, without))
    wide = _rows_to_one(naive_matrix(dataset, 50, 1.0, without))
    width = dataset.item_count
    newest = history[::-1]
    found = {}
    for n in (1, 2, 3):
        power = np.linalg.matrix_power(near, n)
        summed = sum(options.decay**k * power[item] for k, item in enumerate(newest[: options.last_items]))
        found[f"step {n}"] = np.sqrt(summed)
    found["sequence"] = np.sqrt(
        sum(options.sequence_decay**k * wide[i] for k, i in enumerate(newest[: options.sequence_items]))
    )
    found["linear"] = np.sqrt(np.maximum(naive_linear(dataset, history, options, without), 0))
    for name, table in (*texts.items(), ("fields", fields)):
        scores = np.zeros(width)
        for k, item in enumerate(newest[: options.last_items]):
            scores += options.decay**k * np.array([_cosine(table[item], other) for other in table])
        found[name] = scores
    counts = dict.fromkeys(range(width), 0)
    for event in dataset.row_events[dataset.rows("train")]:
        counts[int(dataset.events[event])] += event != without
    found["popularity"] = np.log([1 + counts[item] for item in range(width)])
    return found


def naive_linear(dataset, history, options, without=None):
    """Scores of a ridge regression that never had the row of the event `without`; its penalty is that of all rows."""

    def weighed(items):
        vector = np.zeros(dataset.item_count)
        for k, item in enumerate(items[::-1][: options.sequence_items]):
            vector[item] += options.linear_decay**k
        return vector

    pairs = []
    for row in dataset.rows("train", prefixes=True):
        event, start = dataset.row_events[row], dataset.offsets[dataset.row_sequences[row]]
        pairs.append((event, weighed(dataset.events[start:event]), dataset.events[event]))
    penalty = options.shrinkage * np.mean(sum(x**2 for _, x, _ in pairs))
    kept = [(x, target) for event, x, target in pairs if event != without]
    gram = sum(np.outer(x, x) for x, _ in kept) + penalty * np.eye(dataset.item_count)
    answers = np.zeros((dataset.item_count, dataset.item_count))
    for x, target in kept:
        answers[:, target] += x
    return weighed(history) @ np.linalg.solve(gram, answers)


def naive_evidence(dataset, item, options, without=None):
    """Share of training rows whose newest item has less near transitions than `item` has without an event."""

    def known(of, left_out):
        return round(naive_matrix(dataset, 3, options.backward, left_out)[of].sum(), 6)

    events = dataset.row_events[dataset.rows("train", prefixes=True)]
    mine = known(item, without)
    sums = naive_matrix(dataset, 3, options.backward).sum(1).round(6)
    return sum(sums[dataset.events[event - 1]] < mine for event in events) / len(events)


def naive_weights(rows, ridge):
    """``(S,)`` the best weights of ``[(values (n, S), truth)]``: mean negative log-likelihood and a ridge."""
    deviation = np.concatenate([values for values, _ in rows]).std(0, ddof=1)

    def loss(w):
        total = 0.0
        for values, truth in rows:
            scores = values @ w
            total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[truth]
        return total / len(rows) + ridge * ((w * deviation) ** 2).sum()

    return minimize(loss, np.zeros(len(deviation)), method="BFGS", options={"gtol": 1e-7}).x


def _rows_to_one(matrix):
    sums = matrix.sum(1, keepdims=True)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)


def _cosine(one, other):
    length = np.linalg.norm(one) * np.linalg.norm(other)
    return one @ other / length if length else 0.0
