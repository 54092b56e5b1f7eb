"""From a config to the objects it names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from recdistill.config.schema import RunConfig
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, unknown_name
from recdistill.export import Recommender
from recdistill.item_encoders import ITEM_ENCODERS, Ids, ItemEncoder
from recdistill.knowledge import Knowledge, load_knowledge
from recdistill.losses import LOSSES
from recdistill.strategies import STRATEGIES
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import Reporter, TrainOptions, distill

P = TypeVar("P", bound=nn.Module)


def construct(
    kind: str, table: Mapping[str, type[P]], name: str, options: Mapping[str, Any], **fixed: Any
) -> P:
    """Make a part by its name.

    Raises
    ------
    ConfigError
        The name or an option does not exist, or a value is not allowed.
    """
    if name not in table:
        raise unknown_name(kind, name, table)
    parameters = inspect.signature(table[name].__init__).parameters
    allowed = [p for p in parameters if p not in ("self", *fixed)]
    for option in options:
        if option not in allowed:
            raise unknown_name(f"option of {kind} {name}", option, allowed)
    try:
        return table[name](**{k: v for k, v in fixed.items() if k in parameters}, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind} {name!r} cannot be made: {error}") from error


def student_spec(config: RunConfig) -> dict[str, Any]:
    """Return what rebuilds the student: its name and its constructor's arguments."""
    student = config.student
    if student.name not in STUDENTS:
        raise unknown_name("student", student.name, STUDENTS)
    fixed = {
        "embedding_size": student.embedding_size,
        "variant": student.variant,
        "max_length": student.length,
    }
    takes = inspect.signature(STUDENTS[student.name].__init__).parameters
    return {
        "student": student.name,
        "options": {k: v for k, v in fixed.items() if k in takes} | student.options,
    }


def build_model(config: RunConfig, item_count: int, knowledge: Knowledge | None) -> SequenceModel:
    """Make the student between its item tables, with parameters drawn from the config's seed."""
    torch.manual_seed(config.seed)
    spec = student_spec(config)
    student = construct("student", STUDENTS, spec["student"], spec["options"])
    inject, size = config.item_encoder.inject, student.hidden_size
    if config.student.tied and student.embedding_size != size:
        raise ConfigError(
            f"student {config.student.name!r} reads {student.embedding_size} and writes {size} numbers: "
            "its tables cannot be tied. Set student.tied=false."
        )
    plain_input = config.item_encoder.name != "ids" and inject == "output"
    entry = (
        Ids(item_count, student.embedding_size)
        if plain_input
        else _encoder(config, item_count, knowledge, student.embedding_size)
    )
    if config.student.tied:
        if config.item_encoder.name == "ids" or inject == "both":
            return SequenceModel(student, entry, entry, bias=False)
        raise ConfigError(
            f"item_encoder.inject={inject!r} needs two tables. Set student.tied=false or item_encoder.inject=both."
        )
    text_out = config.item_encoder.name != "ids" and inject != "input"
    exit_ = (
        _encoder(config, item_count, knowledge, size)
        if text_out
        else Ids(item_count, size, std=(3 * size) ** -0.5)
    )
    return SequenceModel(student, entry, exit_, bias=True)


def _encoder(config: RunConfig, item_count: int, knowledge: Knowledge | None, size: int) -> ItemEncoder:
    fixed: dict[str, Any] = {"item_count": item_count, "size": size}
    name = config.item_encoder.name
    takes = inspect.signature(ITEM_ENCODERS[name].__init__).parameters if name in ITEM_ENCODERS else {}
    if "item_embeddings" in takes:
        if knowledge is None or knowledge.item_embeddings is None:
            raise KnowledgeError(
                f"item encoder {name!r} needs the teacher's item embeddings. Pass --knowledge k/ that has them: "
                "recdistill teach embedding."
            )
        fixed["item_embeddings"] = torch.tensor(knowledge.item_embeddings, dtype=torch.float32)
    return construct("item encoder", ITEM_ENCODERS, name, config.item_encoder.options, **fixed)


def default_filter_seen(dataset: SequenceDataset) -> bool:
    """Return what is usual: leave-one-out results filter seen items, the papers' windows keep them."""
    return bool(dataset.provenance.get("split", {}).get("kind") == "leave-one-out")


def run(
    config: RunConfig, out: Path, *, dataset: SequenceDataset | None = None, reporter: Reporter | None = None
) -> Recommender:
    """Carry out a config: load, build, distil. Returns the best student on validation."""
    dataset = dataset or SequenceDataset.load(config.dataset)
    knowledge = load_knowledge(Path(config.knowledge), dataset) if config.knowledge else None
    model = build_model(config, dataset.item_count, knowledge)
    loss = construct("loss", LOSSES, config.loss.name, config.loss.options)
    strategies = [(s.weight, construct("strategy", STRATEGIES, s.name, s.options)) for s in config.strategies]
    train = config.train.model_dump()
    batches = {key: train.pop(key) for key in ("batch_size", "supervision", "negatives", "coverage")}
    filter_seen = default_filter_seen(dataset) if config.filter_seen is None else config.filter_seen
    return distill(
        dataset,
        model,
        loss,
        strategies,
        knowledge,
        out=out,
        spec=student_spec(config),
        options=TrainOptions(**train, seed=config.seed),
        length=config.student.length,
        filter_seen=filter_seen,
        reporter=reporter,
        **batches,
    )
