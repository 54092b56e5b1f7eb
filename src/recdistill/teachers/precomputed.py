"""The teacher that has already answered: the authors' three files become knowledge."""

from __future__ import annotations

from pathlib import Path

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge, import_official


def precomputed(
    files: Path | str,
    dataset: SequenceDataset,
    *,
    metric: str = "l2",
    uid_file: Path | str | None = None,
    uid_column: bool = False,
) -> Knowledge:
    """Read ``all_embeddings.pt``, ``myrank_train.txt`` and ``confidence_train.txt``.

    They hold training rows alone, and no distance of the true item: strategies that ask for
    ``target_distance`` need another teacher.

    Parameters
    ----------
    files
        The folder of the three files, and of ``uid_train.txt`` where rows are joined by id.
    dataset
        The dataset they were made for.
    metric
        How the distances were measured.
    uid_file, uid_column
        Where the row ids stand, if the lines are not in the order of the training rows.

    Raises
    ------
    KnowledgeError
        See `import_official`.
    """
    return import_official(files, dataset, metric=metric, uid_file=uid_file, uid_column=uid_column)
