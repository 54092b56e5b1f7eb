"""Scores of whole titles, one title and one token at a time, straight from the definitions."""

import math

import torch


def next_log_probs(model, tokens, allowed=None):
    """Log-probabilities of the next token; with `allowed`, the others are struck out before the softmax."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].double()
    if allowed is not None:
        struck = torch.full_like(logits, -math.inf)
        struck[sorted(allowed)] = logits[sorted(allowed)]
        logits = struck
    return logits.log_softmax(0)


def title_score(model, prompt, title, titles, *, renormalise=True, weight=1.0, masses=None):
    """D3: sum over the title's tokens of g log p_LM + (1 - g) log [mass(prefix + t) / mass(prefix)].

    `titles` are token tuples with the end token; `masses` a probability for each of them.
    """
    total = 0.0
    for place, token in enumerate(title):
        prefix = title[:place]
        sharing = [t for t in titles if t[:place] == prefix]
        allowed = {t[place] for t in sharing}
        step = next_log_probs(model, [*prompt, *prefix], allowed if renormalise else None)[token].item()
        if masses is None:
            total += step
        else:
            extended = sum(masses[t] for t in sharing if t[place] == token)
            total += weight * step + (1 - weight) * math.log(extended / sum(masses[t] for t in sharing))
    return total


def beam_of_titles(model, prompt, titles, width):
    """Beam search over titles by lists and dictionaries: the `width` best prefixes are kept, whole titles stay."""
    beams = [((), 0.0)]
    while any(beam not in titles for beam, _ in beams):
        grown = []
        for beam, score in beams:
            if beam in titles:
                grown.append((beam, score))
                continue
            allowed = {t[len(beam)] for t in titles if t[: len(beam)] == beam}
            log_probs = next_log_probs(model, [*prompt, *beam], allowed)
            grown += [((*beam, token), score + log_probs[token].item()) for token in allowed]
        beams = sorted(grown, key=lambda pair: -pair[1])[:width]
    return beams
