"""The model card of an exported folder: what it is, how it was checked, what was measured. Markdown with a head that
the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recdistill.evaluate import Evaluation

if TYPE_CHECKING:
    from recdistill.export.loss_of_tables import TableLoss

_METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")
_HEAD = """---
library_name: recdistill
pipeline_tag: other
tags:
- recommendation
- sequential-recommendation
- onnx
---

# {title}

A sequential recommender made with recdistill: it reads the items a person chose last and names the next ones.

| | |
|---|---|
| student | `{student}` with {options} |
| reads | the newest {length} items of a history |
| items | {items:,}, of which {cold:,} had no event in training |
| item table | {table}, {tying} |
| learned from | the {learned} rows |
| new items | {extendable} |
"""
_USE = """
## Use

```python
from recdistill import Recommender

recommender = Recommender.from_pretrained("FOLDER or user/name")
print(recommender.recommend([["an id or a title", "another one"]], k=10))
```

`recdistill recommend FOLDER --input histories.parquet --output recs.parquet -k 20` answers files. Without recdistill:
`model.onnx` takes `history` (int64, batch × length, padded on the right with -1), `k` and `exclude_seen` and returns
`items` (the column `index` of `items.parquet`) and `scores`; an item whose score is -inf is no recommendation.
"""


def model_card(
    config: Mapping[str, Any],
    origin: Mapping[str, Any],
    agreement: Mapping[str, Any],
    losses: Sequence[TableLoss],
    evaluations: Sequence[Evaluation],
    item_count: int,
) -> str:
    """Return ``README.md``.

    Parameters
    ----------
    config
        The export's ``config.json``.
    origin
        ``name``, ``dataset`` and further facts, shown as they are.
    agreement
        What `check_agreement` found.
    losses
        What the packed table costs.
    evaluations
        Results of the run, of any split and protocol.
    item_count
        I.
    """
    options = (
        ", ".join(f"{name}={value}" for name, value in sorted(config["options"].items())) or "its defaults"
    )
    head = _HEAD.format(
        title=_plain(origin.get("name", f"{config['student']} recommender")),
        student=config["student"],
        options=options,
        length=config["length"],
        items=item_count,
        cold=len(config["cold"]),
        learned=" and ".join(["training", *config["learned"]]),
        table=config["table"],
        tying="shared by input and output" if config["tied"] else "one for input, one for output",
        extendable="from their titles: `recdistill extend`" if config["extendable"] else "need training",
    )
    facts = "".join(
        f"| {_plain(name)} | {_plain(value)} |\n" for name, value in origin.items() if name != "name"
    )
    return head + facts + _results(evaluations) + _losses(config, losses) + _checked(agreement) + _USE


def _plain(value: Any) -> str:
    """Return a text that cannot end a table cell or a line."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return ""
    lines = ["| asked | seed | " + " | ".join(name.upper() for name in _METRICS) + " |", "|---" * 6 + "|"]
    for one in evaluations:
        values = one.metrics((10, 20))
        shown = " | ".join(f"{values[name]:.4f}" for name in _METRICS)
        lines.append(f"| {one.protocol} | {'' if one.seed is None else one.seed} | {shown} |")
    return (
        "\n## Measured\n\nThe target of every row is ranked among all items, ties count against it.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _losses(config: Mapping[str, Any], losses: Sequence[TableLoss]) -> str:
    if not losses:
        return "" if config["table"] == "float32" else "\nWhat the smaller table costs was not measured.\n"
    lines = [
        "| split | metric | float32 | " + config["table"] + " | difference | 95% interval |",
        "|---" * 6 + "|",
    ]
    for loss in losses:
        for one in loss.comparisons:
            low, high = one.interval
            lines.append(
                f"| {loss.split} | {one.metric.upper()} | {one.reference_value:.4f} | {one.value:.4f} | "
                f"{one.difference:+.5f} | {low:+.5f} to {high:+.5f} |"
            )
    shared = ", ".join(f"{loss.overlap:.2%} on {loss.split}" for loss in losses)
    return (
        f"\n## What the {config['table']} table costs\n\nThe same rows with both tables, paired.\n\n"
        + "\n".join(lines)
        + f"\n\nOf the 20 best items, both tables name the same: {shared}.\n"
    )


def _checked(agreement: Mapping[str, Any]) -> str:
    return (
        f"\n## Checked\n\nThe ONNX graphs and torch were compared on {agreement['histories']} {agreement['source']}: "
        f"the largest difference is {agreement['hidden']:.1e} in the hidden states and {agreement['scores']:.1e} in "
        "the scores of the 20 best items (over the largest number compared, at least 1).\n"
    )
