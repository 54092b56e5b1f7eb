"""Defaults of the two variants of a student.

``paper`` is the student of DLLM2Rec's experiments (section 4.1.4 and its code): an untied head with a bias, only
the last position supervised, binary cross-entropy with one negative. ``modern`` is what is known to work better
without any teacher: a tied table, every position supervised, the full softmax. A gain over the first proves
little; show both. What is not named here, dropout among it, has the default of the student's variant.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "student": {
            "name": "sasrec",
            "embedding_size": 64,
            "length": 10,
            "tied": False,
        },
        "loss": {"name": "bce"},
        "item_encoder": {"name": "ids", "inject": "input"},
        "train": {
            "batch_size": 256,
            "learning_rate": 1e-3,
            "supervision": "last",
            "negatives": 1,
            # one negative learns popularity first and stays there for some epochs: patience must outlast it
            "patience": 30,
        },
    },
    "modern": {
        "student": {
            "name": "sasrec",
            "embedding_size": 64,
            "length": 50,
            "tied": True,
        },
        "loss": {"name": "ce"},
        "item_encoder": {"name": "ids", "inject": "both"},
        "train": {
            "batch_size": 128,
            "learning_rate": 1e-3,
            "supervision": "all",
            "optimizer": "adamw",
            "patience": 10,
            "repeats": "pick",
        },
    },
}
