"""Small recommenders of every kind, with tables that look trained: rows of very different length, few directions."""

from __future__ import annotations

import numpy as np
import torch

from recdistill.data import SequenceDataset
from recdistill.export import Recommender
from recdistill.item_encoders import Collaborative, Ids, ItemEncoder, TextOnly, TwoBranch
from recdistill.students import STUDENTS, SequenceModel
from shop import ITEMS

LENGTH = 8
#: name → student, options, whether the table is tied.
STUDENT_SPECS = {
    "sasrec-paper": ("sasrec", {"variant": "paper", "max_length": LENGTH}, False),
    "sasrec-modern": ("sasrec", {"variant": "modern", "max_length": LENGTH}, True),
    "sasrec-one-block": (
        "sasrec",
        {"variant": "modern", "max_length": LENGTH, "blocks": 1, "heads": 4},
        True,
    ),
    "sasrec-relu": ("sasrec", {"variant": "modern", "max_length": LENGTH, "activation": "relu"}, False),
    "gru4rec-paper": ("gru4rec", {"variant": "paper"}, False),
    "gru4rec-modern": ("gru4rec", {"variant": "modern", "max_length": LENGTH, "layers": 2}, True),
    "caser-paper": ("caser", {"variant": "paper", "max_length": LENGTH}, False),
    "caser-modern": ("caser", {"variant": "modern", "max_length": LENGTH, "windows": [1, 8]}, True),
    "twin": ("twin", {"max_length": LENGTH, "text_size": 6}, True),
    "twin-gru": ("twin", {"max_length": LENGTH, "branch": "gru4rec"}, False),
}


def like_trained(count: int, size: int, seed: int) -> torch.Tensor:
    """Return ``(count, size)``: popular items long, rare ones short, most of it in a few directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linspace(2.0, 0.05, size)
    lengths = torch.logspace(0.5, -1.5, count).unsqueeze(1)
    return torch.randn(count, size, generator=generator) * directions * lengths


def recommender(data: SequenceDataset, spec: str = "sasrec-modern", *, random: bool = False) -> Recommender:
    """Return a student whose parameters are all away from where they start."""
    name, options, tied = STUDENT_SPECS[spec]
    torch.manual_seed(3)
    options = {"embedding_size": 16, **options}
    student = STUDENTS[name](**options)
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tables = [
        torch.randn(ITEMS, size) if random else like_trained(ITEMS, size, size)
        for size in (student.embedding_size, student.hidden_size)
    ]
    entry = Ids.from_table(tables[0])
    model = SequenceModel(student, entry, entry if tied else Ids.from_table(tables[1]), bias=not tied)
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias)
    return Recommender.from_model(model, data, {"student": name, "options": options}, LENGTH)


def text_recommender(
    data: SequenceDataset,
    vectors: np.ndarray,
    encoder: str,
    *,
    cold: np.ndarray | None = None,
    **options: object,
) -> Recommender:
    """Return a SASRec whose one item table comes from text, with parameters away from where they start."""
    torch.manual_seed(5)
    kinds: dict[str, type[ItemEncoder]] = {
        "collaborative": Collaborative,
        "text_only": TextOnly,
        "two_branch": TwoBranch,
    }
    table = kinds[encoder](ITEMS, 16, torch.from_numpy(vectors), cold=cold, **options)
    student_options = {"embedding_size": 16, "variant": "modern", "max_length": LENGTH}
    student = STUDENTS["sasrec"](**student_options)
    model = SequenceModel(student, table, table, bias=False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Recommender.from_model(model, data, {"student": "sasrec", "options": student_options}, LENGTH)
