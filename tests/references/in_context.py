"""Retrieval and the in-context decoder, loop by loop."""

import math

import numpy as np
import torch


def naive_examples(queries, vectors, labels, times, before, chosen, refused):
    """Return the set of examples of each row: sorted by similarity, each label's share first, then the rest."""
    found = []
    for query, limit in zip(queries, before, strict=True):
        allowed = [e for e in range(len(labels)) if (limit is None or times[e] < limit) and np.any(query)]
        allowed.sort(key=lambda e: -float(query @ vectors[e]))
        shares = {True: chosen, False: refused}
        taken = [
            e for label in (True, False) for e in [x for x in allowed if labels[x] == label][: shares[label]]
        ]
        rest = [e for e in allowed if e not in taken]
        found.append(set(taken + rest[: chosen + refused - len(taken)]))
    return found


def naive_history_vector(text, items):
    total = np.zeros(text.shape[1])
    for item in items:
        if item >= 0:
            total += text[item]
    length = math.sqrt(float(total @ total))
    return total / length if length else total


def naive_decoder(decoder, tokens, there):
    """One row, (T, d), position by position and head by head, with the weights of an `InContextDecoder`."""
    values = tokens.double()
    for block in decoder.blocks:
        weights = {name: value.double() for name, value in block.state_dict().items()}
        size, heads = values.shape[1], block.heads
        normed = _rms(values, weights["before_attention.weight"])
        query, key, value = (normed @ part.T for part in weights["projection.weight"].chunk(3))
        mixed = torch.zeros_like(values)
        width = size // heads
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for t in range(len(values)):
                read = [s for s in range(t + 1) if there[s] or s == t]
                scores = torch.stack([_turn(query[t, part], t) @ _turn(key[s, part], s) for s in read])
                shares = (scores / math.sqrt(width)).softmax(0)
                mixed[t, part] = sum(share * value[s, part] for share, s in zip(shares, read, strict=True))
        values = values + mixed @ weights["output.weight"].T
        gate, up = (_rms(values, weights["before_gate.weight"]) @ weights["expand.weight"].T).chunk(2, dim=1)
        values = values + (gate * torch.sigmoid(gate) * up) @ weights["contract.weight"].T
    return _rms(values, decoder.last.weight.double())


def _rms(values, gain):
    return gain * values / torch.sqrt((values**2).mean(1, keepdim=True) + 1e-6)


def _turn(values, position):
    half = len(values) // 2
    turned = values.clone()
    for i in range(half):
        angle = position * 10000.0 ** (-i / half)
        a, b = values[i], values[half + i]
        turned[i] = a * math.cos(angle) - b * math.sin(angle)
        turned[half + i] = b * math.cos(angle) + a * math.sin(angle)
    return turned
