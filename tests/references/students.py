"""The students of the paper once more, one row, one position and one head at a time, straight from the formulas."""

import math

import torch
import torch.nn.functional as F


def _norm(layer, vector):
    mean = vector.mean()
    variance = ((vector - mean) ** 2).mean()
    return (vector - mean) / torch.sqrt(variance + layer.eps) * layer.weight + layer.bias


def _attend(attention, query, memory):
    """Mixture for one query (d,) over memory (l, d), head by head."""
    d, heads = attention.size, attention.heads
    size = d // heads
    W, b = attention.projection.weight, attention.projection.bias
    parts = []
    for head in range(heads):
        q_rows, k_rows, v_rows = (slice(p * d + head * size, p * d + (head + 1) * size) for p in range(3))
        q = W[q_rows] @ query + b[q_rows]
        scores = torch.stack([q @ (W[k_rows] @ m + b[k_rows]) / math.sqrt(size) for m in memory])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        parts.append(sum(w * (W[v_rows] @ m + b[v_rows]) for w, m in zip(weights, memory, strict=True)))
    return torch.cat(parts)


def _feed(layer, vector, activation):
    inner = activation(layer.expand.weight @ vector + layer.expand.bias)
    return layer.contract.weight @ inner + layer.contract.bias


def sasrec_paper(student, history):
    """Hidden states (l, d) of one history (l, d) of item vectors."""
    x = [vector + student.positions[step] for step, vector in enumerate(history)]
    for block in student.blocks:
        rows = []
        for step in range(len(x)):
            query = _norm(block.attention_norm, x[step])
            mixed = query + _attend(block.attention, query, x[: step + 1])
            normed = _norm(block.forward_norm, mixed)
            rows.append(_norm(block.output_norm, normed + _feed(block.feed_forward, normed, torch.relu)))
        x = rows
    return torch.stack([_norm(student.final_norm, row) for row in x])


def sasrec_modern(student, history):
    """Hidden states (l, d) of one history (l, d) of item vectors."""
    d = history.shape[1]
    x = [vector * math.sqrt(d) + student.positions[step] for step, vector in enumerate(history)]
    for block in student.blocks:
        normed = [_norm(block.attention_norm, row) for row in x]
        out = block.attention.output
        x = [
            row + out.weight @ _attend(block.attention, normed[step], normed[: step + 1]) + out.bias
            for step, row in enumerate(x)
        ]
        x = [row + _feed(block.feed_forward, _norm(block.forward_norm, row), F.gelu) for row in x]
    return torch.stack([_norm(student.final_norm, row) for row in x])


def gru4rec_paper(student, history):
    """Hidden states (l, d) of one history (l, d): reset, update and candidate gate, layer after layer."""
    rows = list(history)
    for layer in range(student.gru.num_layers):
        W, U, b, c = (
            getattr(student.gru, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state, states = torch.zeros_like(history[0]), []
        for x in rows:
            from_input, from_state = (W @ x + b).chunk(3), (U @ state + c).chunk(3)
            reset = torch.sigmoid(from_input[0] + from_state[0])
            update = torch.sigmoid(from_input[1] + from_state[1])
            candidate = torch.tanh(from_input[2] + reset * from_state[2])
            state = (1 - update) * candidate + update * state
            states.append(state)
        rows = states
    return torch.stack(rows)


def caser_paper(student, history):
    """Hidden state of one history (l, d), padded with zeros to L: each filter at each place, then the maximum."""
    L, d = student.max_length, history.shape[1]
    image = torch.cat([history, history.new_zeros(L - len(history), d)])
    answers = []
    for convolution in student.horizontal:
        filters, _, height = convolution.weight.shape
        for k in range(filters):
            places = [
                (convolution.weight[k].T * image[t : t + height]).sum() + convolution.bias[k]
                for t in range(L - height + 1)
            ]
            answers.append(torch.relu(torch.stack(places)).max())
    weight, bias = student.vertical.weight[0], student.vertical.bias[0]
    vertical = torch.relu(sum(weight[step] * image[step] for step in range(L)) + bias)
    return torch.cat([torch.stack(answers), vertical])
