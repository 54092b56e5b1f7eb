from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, Success, nDCG

from recdistill.errors import ConfigError
from recdistill.evaluate import mean_metrics, row_metric
from references import metrics as naive

KS = (1, 5, 10, 20, 50)


def test_worked_values():
    found = mean_metrics(np.array([0, 2, 9]), ks=(5,))
    # 1/log2(2) = 1, 1/log2(4) = 0.5, and the third is beyond the first five.
    assert found["hr@5"] == pytest.approx(2 / 3)
    assert found["ndcg@5"] == pytest.approx(1.5 / 3)
    assert found["mrr@5"] == pytest.approx((1 + 1 / 3) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_the_formulas(seed):
    ranks = np.random.default_rng(seed).integers(0, 60, 300)
    found = mean_metrics(ranks, KS)
    assert len(found) == 15
    for k in KS:
        for name, value in naive.gains(ranks.tolist(), k).items():
            assert found[name] == pytest.approx(value, abs=1e-12)


def test_agreement_with_ir_measures_to_eight_digits():
    rng = np.random.default_rng(7)
    rows, items = 80, 120
    scores = rng.permuted(np.tile(np.arange(items), (rows, 1)), axis=1)
    targets = rng.integers(0, items, rows)
    judged = [ir_measures.Qrel(str(n), str(t), 1) for n, t in enumerate(targets)]
    run = [
        ir_measures.ScoredDoc(str(n), str(item), float(scores[n, item]))
        for n in range(rows)
        for item in range(items)
    ]
    ranks = (scores > scores[np.arange(rows), targets][:, None]).sum(1)
    found = mean_metrics(ranks, KS)
    for k in KS:
        measures = {f"hr@{k}": Success @ k, f"ndcg@{k}": nDCG @ k, f"mrr@{k}": RR @ k}
        theirs = ir_measures.calc_aggregate([*measures.values(), R @ k], judged, run)
        for name, measure in measures.items():
            assert found[name] == pytest.approx(theirs[measure], abs=1e-8)
        assert found[f"hr@{k}"] == pytest.approx(theirs[R @ k], abs=1e-8)


@pytest.mark.parametrize("name", ["recall@20", "ndcg", "ndcg@", "ndcg@0", "ndcg@-3", "ndcg@2.5", "@20"])
def test_wrong_names_are_refused(name):
    with pytest.raises(ConfigError):
        row_metric(np.array([1]), name)


def test_no_rows_have_no_mean():
    with pytest.raises(ConfigError, match="no row"):
        mean_metrics(np.empty(0, np.int64))
