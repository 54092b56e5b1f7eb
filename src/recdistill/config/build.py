"""From a config to the objects it names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recdistill.config.attach import attach
from recdistill.config.schema import RunConfig, StrategyConfig
from recdistill.config.selecting import select_knowledge
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, unknown_name
from recdistill.export import Recommender
from recdistill.item_encoders import ITEM_ENCODERS, Ids, ItemEncoder
from recdistill.knowledge import Knowledge, Walks, load_knowledge, load_walks, load_words, stack_rankings
from recdistill.losses import LOSSES
from recdistill.strategies import STRATEGIES, HetComp, Strategy
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import Reporter, TrainOptions, distill
from recdistill.train.distill import recount

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


def build_model(
    config: RunConfig,
    item_count: int,
    knowledge: Knowledge | None,
    cold: npt.NDArray[np.bool_] | None = None,
) -> SequenceModel:
    """Make the student between its item tables, with parameters drawn from the config's seed.

    Parameters
    ----------
    config
        What to make.
    item_count
        I.
    knowledge
        Holds the item embeddings that some item encoders take.
    cold
        ``(I,)`` items that training never sees; they get no free vector unless the config says so.
    """
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
        else _encoder(config, item_count, knowledge, student.embedding_size, cold)
    )
    if config.student.tied:
        if config.item_encoder.name == "ids" or inject == "both":
            return SequenceModel(student, entry, entry, bias=False)
        raise ConfigError(
            f"item_encoder.inject={inject!r} needs two tables. Set student.tied=false or item_encoder.inject=both."
        )
    if config.item_encoder.name == "ids" or inject == "input":
        return SequenceModel(student, entry, Ids(item_count, size, std=(3 * size) ** -0.5), bias=True)
    shared = None if plain_input else entry.resized(size)  # the teacher's table is held once
    exit_ = shared or _encoder(config, item_count, knowledge, size, cold)
    return SequenceModel(student, entry, exit_, bias=True)


def _encoder(
    config: RunConfig,
    item_count: int,
    knowledge: Knowledge | None,
    size: int,
    cold: npt.NDArray[np.bool_] | None,
) -> ItemEncoder:
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
    if "cold" in takes:
        fixed["cold"] = None if config.item_encoder.free_cold else cold
    return construct("item encoder", ITEM_ENCODERS, name, config.item_encoder.options, **fixed)


def with_words(config: RunConfig, model: SequenceModel, dataset: SequenceDataset) -> SequenceModel:
    """Return the student with knowledge in words attached, as the config's section ``words`` says.

    Raises
    ------
    ConfigError
        A folder of words is given, and no strategy reads it; or as in `attach`.
    KnowledgeError
        As in `attach`.
    """
    chosen = config.words
    if chosen.name is None:
        if chosen.folder is not None:
            raise ConfigError(
                f"{chosen.folder} holds knowledge in words, and no strategy of this run reads it. Allowed: kar, "
                "llm-cf, slim-id, slim-agnostic. Pass --strategy kar, or the folder of a teacher."
            )
        return model
    words = load_words(Path(chosen.folder), dataset) if chosen.folder else None
    cold = None if config.item_encoder.free_cold or not dataset.cold_items.any() else dataset.cold_items
    return attach(chosen.name, model, words, dataset, cold, chosen.options)


def _strategy(config: StrategyConfig, dataset: SequenceDataset) -> Strategy:
    """Make a strategy; the option ``checkpoints`` of hetcomp names earlier answers of its teacher."""
    options = dict(config.options)
    folders = options.pop("checkpoints", []) if config.name == "hetcomp" else []
    strategy = construct("strategy", STRATEGIES, config.name, options)
    if isinstance(strategy, HetComp) and folders:
        if not isinstance(folders, list):
            raise ConfigError(
                f"hetcomp.checkpoints is {folders!r}. Allowed: a list of knowledge folders, the earliest first, such "
                "as hetcomp.checkpoints=[k1/,k2/]."
            )
        strategy.attach(*stack_rankings([load_knowledge(Path(folder), dataset) for folder in folders]))
    return strategy


def _walks(config: RunConfig, dataset: SequenceDataset) -> Walks:
    """Open the walks of the run's teacher.

    Raises
    ------
    ConfigError
        The run has no teacher, or reads knowledge in words, which nobody wrote about the teacher's sequences.
    KnowledgeError
        The teacher left none.
    """
    if config.words.name is not None:
        raise ConfigError(
            f"train.walks is on with {config.words.name}, whose texts are about users and their rows: of a teacher's "
            "walks there are none. Pass train.walks=false."
        )
    if config.knowledge is None:
        raise ConfigError(
            "train.walks is on and there is no teacher, who writes them. Pass --knowledge k/, or train.walks=false."
        )
    return load_walks(Path(config.knowledge), dataset)


def default_filter_seen(dataset: SequenceDataset) -> bool:
    """Return what is usual: leave-one-out results filter seen items, the papers' windows keep them."""
    return bool(dataset.provenance.get("split", {}).get("kind") == "leave-one-out")


def run(
    config: RunConfig, out: Path, *, dataset: SequenceDataset | None = None, reporter: Reporter | None = None
) -> Recommender:
    """Carry out a config: load, build, distil. Returns the best student on validation."""
    dataset = dataset or SequenceDataset.load(config.dataset)
    if config.refit.counts_only:
        return recount(Path(str(config.refit.run)), dataset, config.refit.learned, out)
    dataset = dataset.learning_from(*config.refit.learned)
    knowledge = load_knowledge(Path(config.knowledge), dataset) if config.knowledge else None
    model = build_model(config, dataset.item_count, knowledge, dataset.cold_items)
    model = with_words(config, model, dataset)
    loss = construct("loss", LOSSES, config.loss.name, config.loss.options)
    strategies = [(s.weight, _strategy(s, dataset)) for s in config.strategies]
    train = config.train.model_dump()
    if knowledge is not None and config.select.how != "all":
        knowledge = select_knowledge(config, dataset, knowledge)
        if train["coverage"] == "error":  # the selected rows are covered; the others are meant not to be
            train["coverage"] = "mask"
    walks = _walks(config, dataset) if train.pop("walks") else None
    asked = train.pop("prior")
    prior = asked if config.refit.rows == "train" else config.refit.prior
    batches = {key: train.pop(key) for key in ("batch_size", "supervision", "negatives", "coverage")}
    filter_seen = default_filter_seen(dataset) if config.filter_seen is None else config.filter_seen
    return distill(
        dataset,
        model,
        loss,
        strategies,
        knowledge,
        walks=walks,
        out=out,
        spec=student_spec(config),
        options=TrainOptions(**train, seed=config.seed),
        length=config.student.length,
        filter_seen=filter_seen,
        cold_stretch=config.refit.cold_stretch,
        prior=None if prior == "none" else prior,
        reporter=reporter,
        **batches,
    )
