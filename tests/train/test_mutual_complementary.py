"""Two models that know different halves: where text tells what follows, and where only ids do, one round joins both."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data import Catalogue, SequenceDataset
from recdistill.export import Recommender
from recdistill.item_encoders import Ids
from recdistill.knowledge import load_knowledge, teacher_evaluation
from recdistill.losses import CE
from recdistill.students import STUDENTS, SequenceModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.partner import ItemHeadPartner
from recdistill.train import TrainOptions
from recdistill.train.mutual import MutualOptions, StudentSide, mutual

TEXTS, PARTS, OTHERS, USERS, STEPS = 240, 8, 24, 200, 6
ITEMS = TEXTS + OTHERS
SPEC = {
    "student": "sasrec",
    "options": {"embedding_size": 32, "variant": "modern", "max_length": 6, "dropout": 0.1, "blocks": 1},
}


def halves(noise=0.3):
    """Return sequences in which part p of a series is followed by part p + 1, as the text vectors tell, and others in
    which items without text follow each other in a secret order; and the text vectors."""
    rng = np.random.default_rng(0)
    rng.permutation(OTHERS)
    after = np.array([PARTS * (k // PARTS) + (k + 1) % PARTS for k in range(TEXTS)] + [0] * OTHERS)
    secret = TEXTS + rng.permutation(OTHERS)
    after[secret] = np.roll(secret, -1)
    events = []
    for user in range(USERS):
        rng.random()
        low, high = (0, TEXTS) if user % 2 == 0 else (TEXTS, ITEMS)
        item = rng.integers(low, high)
        events.append(item)
        for _ in range(STEPS):
            item = after[item] if rng.random() > noise else rng.integers(low, high)
            events.append(item)
    text = np.zeros((ITEMS, PARTS + TEXTS // PARTS), dtype=np.float32)
    for k in range(TEXTS):
        text[k, [k % PARTS, PARTS + k // PARTS]] = 1
    position = np.tile(np.arange(1, STEPS + 1), USERS)
    users = np.repeat(np.arange(USERS), STEPS)
    names = [f"i{k:03d}" for k in range(ITEMS)]
    dataset = SequenceDataset(
        catalogue=Catalogue(pl.DataFrame({"item_id": names, "title": names})),
        events=np.array(events, dtype=np.int64),
        offsets=np.arange(USERS + 1) * (STEPS + 1),
        row_ids=np.arange(USERS * STEPS),
        row_events=users * (STEPS + 1) + position,
        row_sequences=users,
        row_splits=np.where(position == STEPS, 2, np.where(position == STEPS - 1, 1, 0)).astype(np.int8),
        provenance={"name": "halves", "split": {"kind": "leave-one-out"}},
    )
    return dataset, text


def student_model():
    torch.manual_seed(0)
    table = Ids(ITEMS, 32)
    return SequenceModel(STUDENTS["sasrec"](**SPEC["options"]), table, table, bias=False)


def language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    return SimpleNamespace(name="t", fingerprint="t", model=model, encode=lambda text, bos=True: [1] * bos)


def hits(dataset, text, out, factor):
    """Carry out one round; return HR@1 on test of the student before it, of the student after it, of the other."""
    options = TrainOptions(epochs=25, patience=4, learning_rate=5e-3, metric="ndcg@10")
    side = StudentSide(student_model, CE, SPEC, options, supervision="all", length=6, batch_size=32)
    teacher = ItemHeadOptions(
        epochs=12, patience=3, batch_tokens=256, head_size=16, dropout=0.1, learning_rate=0.01,
        lm_learning_rate=0.003, max_items=6, id_dropout=0.2, tune="full",
    )  # fmt: skip
    mutual(
        dataset,
        side,
        lambda vectors: ItemHeadPartner(language_model(), vectors, text, teacher),
        out=out,
        options=MutualOptions(rounds=1, top_m=30, lambda_teacher=factor, lambda_student=factor),
    )
    students = [Recommender.load(out / f"rounds/{k}/student") for k in (0, 1)]
    found = [one.evaluate(dataset, "test", filter_seen=False) for one in students]
    found.append(teacher_evaluation(load_knowledge(out / "rounds/1/teacher"), dataset, "test", False))
    return [float((one.ranks < 1).mean()) for one in found]


def test_one_round_gives_a_student_that_knows_more_than_either_alone(tmp_path):
    dataset, text = halves()
    before, student, _ = hits(dataset, text, tmp_path / "together", 1.0)
    alone, longer, other = hits(dataset, text, tmp_path / "apart", 0.0)
    assert before == alone  # round 0 is the same
    assert student > max(alone, longer) + 0.02  # than a student trained as long without a partner
    assert student > other  # than a language model without a partner
