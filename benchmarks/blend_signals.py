"""What each signal of the blend teacher brings: NDCG@20 on validation rows without it, and that of the graph teacher.

Weights are fitted on two thirds of the rows and judge the last, three times, so that no row is judged by weights that
it helped to choose; the graph's, from its grid, have seen all of them. Items of the history are left out.

    python benchmarks/blend_signals.py d/ --encoder E --encoder tfidf
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recdistill.data import SequenceDataset
from recdistill.evaluate.significance import sign_flip_p
from recdistill.teachers import GraphScorer, encode_text, tune
from recdistill.teachers.base import ranks_of_rows, some_rows
from recdistill.teachers.blend import Signals
from recdistill.teachers.blend.signals import EVIDENCE
from recdistill.teachers.blend.weights import Candidates, candidates_of, settle

FOLDS, LENGTH, BATCH = 3, 50, 64


def without(candidates: Candidates, kept: list[int]) -> Candidates:
    return Candidates(candidates.owner, candidates.values[:, kept], candidates.truth)


def weights_by_fold(signals: Signals, folds: list[np.ndarray], left_out: list[str]) -> Tensor:
    """Return ``(V, F, 2 S)`` weights of every variant and what evidence adds, fitted without each fold.

    They are 0 where a signal, or what evidence adds, is left out.
    """
    count = len(signals.names)
    found = torch.zeros(len(left_out), len(folds), 2 * count)
    for number in range(len(folds)):
        others = np.concatenate([rows for n, rows in enumerate(folds) if n != number])
        candidates = candidates_of(signals, others, LENGTH)
        for variant, name in enumerate(left_out):
            places = [place for place, one in enumerate(signals.names) if one != name]
            kept = places if name == EVIDENCE else [*places, *[count + place for place in places]]
            found[variant, number, kept] = settle(without(candidates, kept))
    return found


def gains(ranks: np.ndarray) -> np.ndarray:
    return np.where(ranks < 20, 1 / np.log2(ranks + 2.0), 0.0)


def judge(signals: Signals, rows: np.ndarray, weights: Tensor) -> np.ndarray:
    """Return ``(V, n)`` NDCG@20 of each row, ``weights (V, 2 S)``, items of the history left out."""
    data, parts = signals.dataset, []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        history = data.histories(part, LENGTH)
        values = torch.stack([one for _, one in signals(history, part)], 2)  # (B, I, S)
        evidence = signals.evidence(history, part)[:, None]  # (B, 1)
        targets = torch.from_numpy(data.targets(part))[:, None]
        owner, item = (torch.from_numpy(one) for one in data.seen(part))
        old = item != targets[owner, 0]
        ranks = []
        for one in weights:
            constant, added = one.chunk(2)
            scores = (values @ (constant + evidence * added)[..., None]).squeeze(2)  # (B, I)
            scores[owner[old], item[old]] = -torch.inf
            ranks.append((scores >= scores.gather(1, targets)).sum(1).numpy() - 1)
        parts.append(gains(np.stack(ranks)))
    return np.concatenate(parts, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--encoder", action="append")
    parser.add_argument("--rows", type=int, default=4096)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = SequenceDataset.load(asked.dataset)
    encoders = asked.encoder or ["tfidf"]
    texts = {
        one: encode_text(data.catalogue.titles, one, cache=asked.dataset / "text").vectors for one in encoders
    }
    rows = some_rows(data.rows("valid"), asked.rows)
    graph = GraphScorer(data, texts[encoders[0]], tune(data, texts[encoders[0]]))
    beside = gains(ranks_of_rows(graph.score_rows, data, rows, length=LENGTH)[1])
    signals = Signals(data, texts)
    dealt = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    left_out = ["", *signals.names, EVIDENCE]
    weights = weights_by_fold(signals, [rows[dealt == fold] for fold in range(FOLDS)], left_out)
    judged = np.empty((len(left_out), len(rows)))
    for fold in range(FOLDS):
        judged[:, dealt == fold] = judge(signals, rows[dealt == fold], weights[:, fold])
    print(
        f"| {data.name}, {len(rows):,} validation rows | NDCG@20 | of the whole | p |\n| --- | ---: | ---: | ---: |"
    )
    whole = judged[0].mean()
    for name, one in [("graph teacher", beside), *zip(left_out, judged, strict=True)]:
        label = name if name == "graph teacher" else f"without {name}" if name else "blend"
        p = "" if not name else f"{sign_flip_p(judged[0] - one):.3f}"
        change = "" if not name else f"{one.mean() / whole - 1:+.1%}"
        print(f"| {label} | {one.mean():.4f} | {change} | {p} |")


if __name__ == "__main__":
    main()
