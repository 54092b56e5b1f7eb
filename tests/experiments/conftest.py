from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from recdistill.knowledge import save_knowledge
from recdistill.teachers import GraphTeacher, rows_to_teach, take_walks
from shop import ITEMS, ring_dataset

#: Everything at toy size.
TINY = ["train.epochs=1", "student.embedding_size=8", "train.batch_size=64", "student.length=5"]


class Shop(NamedTuple):
    dataset: Path
    knowledge: Path
    words: list[str]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A ring of items and a graph teacher that answered all of its rows and wrote walks."""
    root = tmp_path_factory.mktemp("ring")
    data = ring_dataset(users=40)
    data.save(root / "d")
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float32)
    teacher = GraphTeacher(temperature=0.1, item_embeddings=vectors)
    rows = rows_to_teach(data, ["train", "valid", "test"])
    answers = teacher.teach(data, rows, top_k=20)
    walks = take_walks(teacher.scorer(data), data, count=30, steps=3, temperature=0.1, top_k=20)
    save_knowledge(answers, root / "k", dataset=data, walks=walks)
    return Shop(root / "d", root / "k", TINY)
