"""One DLLM2Rec training step: the library against the authors' way, in one process, on the authors' setting.

17,408 items, windows of 10, batches of 256, SASRec with d = 64, one block, one head, untied head with bias,
K = 10 candidates, teacher vectors of 4,096. A step is everything: drawing the batch and its negatives, the
teacher's rows, forward, backward, Adam. Three objectives: plain BCE; with DROS; the whole of DLLM2Rec.

Before anything is timed, both sides get the same weights, batch and negatives, with dropout off, and must
give the same loss and the same gradients to 1e-3. For that check the layer norms are moved off their initial
values: at gain 1 and bias 0 the sum of a normed vector is zero up to rounding, and the authors' query mask
silently drops those rows where it is exactly zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import report
import synthetic
from authors_step import (
    AuthorsBatch,
    AuthorsSASRec,
    AuthorsSetting,
    AuthorsTrainer,
    authors_loss,
    draw_negatives,
    propensity,
)
from measure import compare
from ours import Steps, describe_task, paper_sasrec
from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge
from recdistill.losses import BCE, DROS, Loss
from recdistill.strategies import Importance, Strategy
from recdistill.students import SequenceModel
from recdistill.train import BatchLoader, Objective, TrainOptions
from recdistill.types import PAD, Batch

TOLERANCE = 1e-3
GOALS = {"float32": 30, "bf16": 50}
SETTINGS = {
    "BCE": AuthorsSetting(alpha=0.0, inject_weight=0.0, distil_weight=0.0),
    "BCE + DROS": AuthorsSetting(inject_weight=0.0, distil_weight=0.0),
    "DLLM2Rec": AuthorsSetting(),
}


def our_terms(setting: AuthorsSetting) -> tuple[Loss, list[tuple[float, Strategy]]]:
    """Return loss and strategies that compute the authors' objective."""
    loss = DROS(alpha=setting.alpha, radius=setting.beta) if setting.alpha else BCE(reduction="official")
    if not setting.distil_weight:
        return loss, []
    importance = Importance(
        variant="official",
        k=setting.candidates,
        gamma_position=setting.gamma_position,
        gamma_confidence=setting.gamma_confidence,
        gamma_consistency=setting.gamma_overlap,
        dros_weight=setting.alpha,
        dros_radius=setting.beta,
        official_broadcast=True,
    )
    return loss, [(setting.distil_weight, importance)]


def pairs(theirs: AuthorsSASRec, ours: SequenceModel) -> list[tuple[str, Tensor, Callable[[bool], Tensor]]]:
    """Return (name, our parameter, their counterpart or its gradient) for every parameter of ours."""
    block = ours.student.blocks[0]
    layers = {
        "attention_norm": (block.attention_norm, theirs.norm_attention),
        "forward_norm": (block.forward_norm, theirs.norm_feedforward),
        "output_norm": (block.output_norm, theirs.norm_inner),
        "final_norm": (ours.student.final_norm, theirs.norm_last),
        "expand": (block.feed_forward.expand, theirs.expand),
        "contract": (block.feed_forward.contract, theirs.contract),
    }
    found: list[tuple[str, Tensor, list[Tensor]]] = []
    for name, (mine, other) in layers.items():
        found += [
            (f"{name}.{part}", getattr(mine, part), [getattr(other, part)]) for part in ("weight", "bias")
        ]
    attention = block.attention.projection
    stacked = (theirs.query, theirs.key, theirs.value)
    found += [
        (f"attention.{p}", getattr(attention, p), [getattr(x, p) for x in stacked])
        for p in ("weight", "bias")
    ]
    found.append(("positions", ours.student.positions, [theirs.places.weight]))
    found.append(("head.weight", ours.output_encoder.weight, [theirs.head.weight]))
    found.append(("head.bias", ours.item_bias, [theirs.head.bias]))
    encoder = ours.item_encoder
    if theirs.inject_weight:
        found.append(("items", encoder.offsets, [theirs.items.weight]))
        found += [
            (f"projector.{p}", getattr(encoder.entry, p), [getattr(theirs.projector, p)])
            for p in ("weight", "bias")
        ]
    else:
        found.append(("items", encoder.weight, [theirs.items.weight]))
    return [(name, mine, _counterpart(mine, others)) for name, mine, others in found]


def _counterpart(mine: Tensor, others: list[Tensor]) -> Callable[[bool], Tensor]:
    def get(gradient: bool) -> Tensor:
        parts = [part.grad if gradient else part.detach() for part in others]
        joined = torch.cat(parts)[: len(mine)]  # without the authors' row of the pad
        return joined.reshape(mine.shape)

    return get


def agreement(
    setting: AuthorsSetting,
    dataset: SequenceDataset,
    knowledge: Knowledge,
    *,
    size: int,
    dtype: str,
    autocast: bool,
) -> dict[str, float]:
    """Return the relative differences of loss and gradients for the same weights, batch and negatives."""
    theirs, ours = make_models(setting, dataset, knowledge, dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(0.1 * torch.randn(module.weight.shape, generator=generator))
                module.bias.add_(0.1 * torch.randn(module.bias.shape, generator=generator))
        theirs.items.weight.mul_(20)  # logits that differ, as after some training
        theirs.head.weight.mul_(3)
    matched = pairs(theirs, ours)
    with torch.no_grad():
        for _, mine, other in matched:
            mine.copy_(other(False))
    expected = len(list(ours.parameters()))
    if len(matched) != expected:
        raise RuntimeError(f"{len(matched)} of {expected} parameters have a counterpart")
    loss, strategies = our_terms(setting)
    objective = Objective(ours, loss, strategies, describe_task(dataset, ours, knowledge)).eval()
    batch, authors_batch = same_batch(dataset, knowledge, size)
    value = authors_loss(theirs.eval(), authors_batch, propensity(dataset.popularity), setting)
    value.backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = objective(batch)
    total.backward()
    differences = {
        name: float((mine.grad - other(True)).norm() / other(True).norm().clamp_min(1e-12))
        for name, mine, other in matched
    }
    worst = max(differences, key=lambda name: differences[name])
    return {
        "loss_authors": float(value.detach()),
        "loss_ours": float(total.detach()),
        "loss_difference": abs(float(total.detach()) / float(value.detach()) - 1),
        "gradient_difference": differences[worst],
        "worst_gradient": worst,  # type: ignore[dict-item]
    }


def same_batch(dataset: SequenceDataset, knowledge: Knowledge, size: int) -> tuple[Batch, AuthorsBatch]:
    """Return the first rows of the dataset with the same negatives, as either side reads them."""
    rows = dataset.rows("train")[:size]
    history = torch.from_numpy(dataset.histories(rows, 10))
    sequences = torch.where(history == PAD, dataset.item_count, history)
    lengths = (history != PAD).sum(1)
    targets = torch.from_numpy(dataset.targets(rows))
    torch.manual_seed(3)
    negatives = draw_negatives(sequences, targets, dataset.item_count)
    row_ids = torch.from_numpy(dataset.row_ids[rows])
    known = knowledge.rows_for(row_ids)
    assert known.ranking is not None
    assert known.ranking_distance is not None
    ours = Batch(history, lengths, None, targets, row_ids, negatives.unsqueeze(1), known)
    theirs = AuthorsBatch(sequences, lengths, targets, negatives, known.ranking, known.ranking_distance)
    return ours, theirs


def make_models(
    setting: AuthorsSetting, dataset: SequenceDataset, knowledge: Knowledge, dtype: str
) -> tuple[AuthorsSASRec, SequenceModel]:
    """Return the student of either side."""
    vectors = knowledge.item_embeddings
    assert vectors is not None
    torch.manual_seed(0)
    theirs = AuthorsSASRec(dataset.item_count, torch.from_numpy(vectors), inject_weight=setting.inject_weight)
    given = vectors if setting.inject_weight else None
    ours = paper_sasrec(dataset.item_count, given, inject_weight=setting.inject_weight, dtype=dtype)  # type: ignore[arg-type]
    return theirs, ours


def sides(
    setting: AuthorsSetting, dataset: SequenceDataset, knowledge: Knowledge, size: int, *, bf16: bool
) -> dict[str, Callable[[], object]]:
    """Return what is timed for one objective: the authors' step and ours in each precision."""
    theirs, _ = make_models(setting, dataset, knowledge, "float32")
    tables = synthetic.authors_tables(dataset, knowledge, 10)
    trainer = AuthorsTrainer(
        theirs, tables.frame, tables.ranking, tables.distance, dataset.popularity, setting
    )
    found: dict[str, Callable[[], object]] = {"authors": lambda: trainer.step(size)}
    for precision in ("float32", "bf16") if bf16 else ("float32",):
        loss, strategies = our_terms(setting)
        dtype = "bfloat16" if precision == "bf16" else "float32"
        _, model = make_models(setting, dataset, knowledge, dtype)
        known = knowledge if strategies else None
        loader = BatchLoader(dataset, "last", 10, size, negatives=1, knowledge=known)
        options = TrainOptions(
            learning_rate=setting.learning_rate,
            weight_decay=setting.weight_decay,
            precision=precision,  # type: ignore[arg-type]
        )
        found[precision] = Steps(dataset, model, loss, strategies, known, loader, options)
    return found


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, default=17408)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--width", type=int, default=4096, help="numbers in a teacher vector")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-bf16", action="store_true")
    options = parser.parse_args()
    dataset = synthetic.windows(options.rows, options.items, seed=options.seed)
    knowledge = synthetic.teacher(dataset, size=options.width, seed=options.seed + 1)
    content: dict[str, Any] = {"setting": {**vars(options), "out": str(options.out)}, "objectives": {}}
    rows = []
    for name, setting in SETTINGS.items():
        check = agreement(
            setting, dataset, knowledge, size=options.batch_size, dtype="float32", autocast=False
        )
        found = sides(setting, dataset, knowledge, options.batch_size, bf16=not options.no_bf16)
        times = compare(
            found, repeats=options.repeats, threads=options.threads, calls={"float32": 5, "bf16": 5}
        )
        entry: dict[str, Any] = {"agreement": check, "times": times, "ratio": {}}
        for side, value in times.items():
            ratio = report.ratio(times["authors"], value)
            entry["ratio"][side] = ratio
            rows.append((name, side, *(value[key] for key in COLUMNS.values()), *ratio.values()))
        if not options.no_bf16:
            entry["agreement_bf16"] = agreement(
                setting, dataset, knowledge, size=options.batch_size, dtype="bfloat16", autocast=True
            )
        content["objectives"][name] = entry
    text = report.table(("objective", "side", *COLUMNS, "ratio CPU", "ratio wall"), rows)
    text += "\n\n" + _agreements(content["objectives"])
    report.save("step", options.threads, options.out, content, text)
    worst = max(max(_differences(entry["agreement"])) for entry in content["objectives"].values())
    if worst > TOLERANCE:
        sys.exit(f"the two sides differ by {worst:.1e}; {TOLERANCE} is allowed")


COLUMNS = {
    "CPU min ms, 1 thread": "cpu_1_thread_ms",
    "CPU median ms, 1 thread": "cpu_1_thread_median_ms",
    "wall min ms": "wall_min_ms",
    "wall median ms": "wall_median_ms",
}


def _differences(check: dict[str, Any]) -> tuple[float, float]:
    return check["loss_difference"], check["gradient_difference"]


def _agreements(objectives: dict[str, Any]) -> str:
    lines = []
    for name, entry in objectives.items():
        for key, label in (("agreement", "float32"), ("agreement_bf16", "bf16")):
            if key in entry:
                loss, gradient = _differences(entry[key])
                value = entry[key]["loss_ours"]
                lines.append(
                    f"- {name}, {label}: loss {value:.6f}, differs by {loss:.1e}; gradients by at most "
                    f"{gradient:.1e} ({entry[key]['worst_gradient']})"
                )
    return (
        f"Same weights, batch and negatives, no dropout (allowed in float32: {TOLERANCE}):\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
