"""Do a knowledge folder and a dataset belong together?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.findings import Check
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.store import title_hash
from recdistill.types import PAD


def alignment(knowledge: Knowledge, dataset: SequenceDataset) -> list[Check]:
    """Ask whether knowledge and dataset belong together, by what they say and by what they hold."""
    manifest = knowledge.manifest
    same = manifest.get("dataset_fingerprint") == dataset.fingerprint
    checks = [Check("fingerprint", same, "the dataset's own" if same else "another dataset, or none named")]
    if "title_hash" in manifest:
        titles = manifest["title_hash"] == title_hash(dataset.catalogue.titles)
        checks.append(
            Check("titles", titles, "unchanged" if titles else "changed since the teacher read them")
        )
    unknown = int((~np.isin(knowledge.row_ids, dataset.row_ids)).sum())
    checks.append(Check("row ids", not unknown, f"{unknown:,} of {len(knowledge):,} not in the dataset"))
    items = knowledge.item_count == dataset.item_count
    checks.append(Check("items", items, f"{knowledge.item_count:,} and {dataset.item_count:,}"))
    if unknown or not items:
        return checks
    targets = dataset.targets(dataset.positions_of(knowledge.row_ids))
    knowledge.check(targets)
    checks.append(Check("contents", True, "ids, distances and vectors are in range; lists are lists"))
    checks += _agreement(knowledge, targets)
    return checks


def _agreement(knowledge: Knowledge, targets: npt.NDArray[np.int64]) -> list[Check]:
    """Compare each listed target's place and distance with those stored for it: shuffled rows would
    differ."""
    if knowledge.ranking is None:
        return []
    listed, place = np.nonzero(knowledge.ranking == targets[:, None])
    checks = []
    if knowledge.target_rank is not None and len(listed):
        ranks = knowledge.target_rank[listed]
        wrong = float(((ranks != PAD) & (ranks < place)).mean())
        checks.append(Check("places of listed targets", wrong < 0.01, f"{wrong:.1%} contradict target_rank"))
    if knowledge.target_distance is not None and knowledge.ranking_distance is not None and len(listed):
        known, found = knowledge.target_distance[listed], knowledge.ranking_distance[listed, place]
        wrong = float((np.isfinite(known) & ~np.isclose(known, found, rtol=1e-2, atol=1e-3)).mean())
        checks.append(
            Check("distances of listed targets", wrong < 0.01, f"{wrong:.1%} contradict target_distance")
        )
    return checks
