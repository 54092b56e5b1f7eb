"""How knowledge in words is attached to a student: by the name of a strategy, what it adds on the two sides.

Each function takes a plain `SequenceModel` and returns one that reads words as well. Before the first step it answers
as the plain one, but for ``slim-agnostic``, which has no ids.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, unknown_name
from recdistill.item_encoders import HybridExperts, ItemEncoder, KarItems, SlimItems, SlimText, TextTable
from recdistill.item_encoders.text_space import into_space, text_space
from recdistill.knowledge import Words
from recdistill.students import SequenceModel
from recdistill.user_encoders import (
    Examples,
    KarUsers,
    KnownRows,
    LlmCf,
    SlimTextUsers,
    SlimUsers,
    UserEncoder,
)

Cold = npt.NDArray[np.bool_] | None
_STEPS = ("preferences", "categories", "items")


def attach_kar(
    model: SequenceModel,
    words: Words,
    dataset: SequenceDataset,
    cold: Cold = None,
    *,
    users: bool = True,
    items: bool = True,
    rank: int = 128,
    gate: float = -3.0,
    **experts: Any,
) -> SequenceModel:
    """Attach KAR, see `recdistill.item_encoders.kar` and `recdistill.user_encoders.kar`.

    Parameters
    ----------
    model
        The plain student.
    words
        Of ``recdistill rationales kar``.
    dataset
        Whose rows.
    cold
        ``(I,)`` items that training never sees.
    users, items
        Which sides read; with neither the plain student is returned.
    rank
        r, to which vectors of texts are reduced first.
    gate
        θ at the start.
    **experts
        Options of `HybridExperts`.
    """
    about_items, about_users = _tensor(words["item_vectors"]), _tensor(words["user_vectors"])
    both = [about_items] + ([about_users] if len(about_users) else [])
    mean, matrix = text_space(*both, rank=rank)
    adaptor = HybridExperts(matrix.shape[1], **experts)
    entry, output = model.item_encoder, model.output_encoder
    if items and bool((about_items != 0).any()):  # items that nobody was asked about cost nothing
        texts = into_space(about_items, mean, matrix)
        entry, output = _both(model, lambda base: KarItems(base, adaptor, texts, gate=gate, cold=cold))
    known: UserEncoder | None = None
    if users and len(about_users):
        texts = into_space(about_users, mean, matrix)
        known = KarUsers(_known(words, dataset), texts, adaptor, model.student.hidden_size, gate=gate)
    return _with(model, entry, output, known)


def attach_slim_id(
    model: SequenceModel,
    words: Words,
    dataset: SequenceDataset,
    cold: Cold = None,
    *,
    steps: str = "apart",
    use: tuple[str, ...] = _STEPS,
    users: bool = True,
    items: bool = True,
    rank: int = 128,
) -> SequenceModel:
    """Attach SLIM's ID-based fusion, see `recdistill.item_encoders.slim` and `recdistill.user_encoders.slim`.

    Parameters
    ----------
    model, words, dataset, cold, users, items, rank
        As in `attach_kar`; `words` of ``recdistill rationales slim``.
    steps
        ``apart``: each step has its own place. ``together``: one vector, that of the whole rationale, or the mean of
        the steps where not all are used.
    use
        Which steps, for the ablation.
    """
    about_items, about_users = _tensor(words["item_vectors"]), chosen_steps(words, steps, use)
    mean, matrix = text_space(about_items, *([about_users] if len(about_users) else []), rank=rank)
    reader = nn.Linear(matrix.shape[1], model.student.hidden_size, bias=False)
    entry, output = model.item_encoder, model.output_encoder
    if items:
        texts = into_space(about_items, mean, matrix)
        entry, output = _both(model, lambda base: SlimItems(base, reader, texts, cold=cold))
    known: UserEncoder | None = None
    if users and len(about_users):
        texts = into_space(about_users, mean, matrix)
        known = SlimUsers(_known(words, dataset), texts, reader, model.student.hidden_size)
    return _with(model, entry, output, known)


def attach_slim_agnostic(
    model: SequenceModel,
    words: Words,
    dataset: SequenceDataset,
    cold: Cold = None,
    *,
    steps: str = "apart",
    use: tuple[str, ...] = _STEPS,
    users: bool = True,
    history: bool = False,
    rank: int = 128,
    inner: int = 128,
    form: str = "mlp",
    scale: float = 100.0,
) -> SequenceModel:
    """Attach SLIM's ID-agnostic recommendation: every vector comes from text, and none belongs to an item.

    A row whose user has a rationale is answered by it alone (with `history`, by both); any other by the student over
    the history's texts.

    Parameters
    ----------
    model, words, dataset, cold, steps, use, users, rank
        As in `attach_slim_id`; `users` false: the student over texts alone.
    history
        Whether the hidden state counts beside the rationale.
    inner
        Width of g_t's inner layer; 0: linear.
    form
        Of g_t: ``mlp``, or ``transformer``: one block, in which the steps of a rationale read each other.
    scale
        exp(γ) at the start.
    """
    about_items, about_users = _tensor(words["item_vectors"]), chosen_steps(words, steps, use)
    mean, matrix = text_space(about_items, *([about_users] if len(about_users) else []), rank=rank)
    student = model.student
    output = SlimText(
        TextTable(mean, matrix, student.hidden_size, inner=inner, form=form), about_items, cold=cold
    )
    entry = output
    if not model.tied:
        entry = SlimText(
            TextTable(mean, matrix, student.embedding_size, inner=inner, form=form), about_items, cold=cold
        )
    known: UserEncoder | None = None
    if users and len(about_users):
        known = SlimTextUsers(
            _known(words, dataset), about_users, output.text_table, history=history, scale=scale
        )
    return SequenceModel(student, entry, output, bias=False, user_encoder=known)


def attach_llm_cf(
    model: SequenceModel,
    words: Words,
    dataset: SequenceDataset,
    cold: Cold = None,
    *,
    weight: float = 0.1,
    alpha: float = 1.0,
    chosen: int = 2,
    refused: int = 2,
    blocks: int = 2,
    heads: int = 2,
    dropout: float = 0.1,
    id_size: int = 16,
    last_items: int = 10,
    seed: int = 0,
) -> SequenceModel:
    """Attach LLM-CF, see `recdistill.user_encoders.llm_cf`, where every option is explained.

    Items keep their vectors, so that `cold` changes nothing. `words` are those of ``recdistill rationales llm-cf``.
    """
    examples = Examples(
        row_ids=np.asarray(words["example_rows"]),
        items=np.asarray(words["example_items"]),
        labels=np.asarray(words["example_labels"]) > 0,
        times=np.asarray(words["example_times"]),
        words=np.asarray(words["example_words"], dtype=np.float32),
        text=np.asarray(words["item_vectors"], dtype=np.float32),
    )
    users = LlmCf(
        examples,
        dataset,
        model.student.hidden_size,
        weight=weight,
        alpha=alpha,
        chosen=chosen,
        refused=refused,
        blocks=blocks,
        heads=heads,
        dropout=dropout,
        id_size=id_size,
        last_items=last_items,
        seed=seed,
    )
    return _with(model, model.item_encoder, model.output_encoder, users)


def chosen_steps(words: Words, steps: str, use: tuple[str, ...]) -> Tensor:
    """Return ``(V, P, D)`` vectors of the steps that are read.

    Raises
    ------
    ConfigError
        A step does not exist, none is used, or `steps` is neither apart nor together.
    """
    if steps not in ("apart", "together"):
        raise unknown_name("way to read the steps", steps, ("apart", "together"))
    for name in use:
        if name not in _STEPS:
            raise unknown_name("step", str(name), _STEPS)
    vectors = _tensor(words["user_vectors"])  # (V, 4, D): three steps, then all as one text
    places = [place for place, name in enumerate(_STEPS) if name in use]
    if not places:
        raise ConfigError("use is empty. Allowed: preferences, categories, items. Pass use=[preferences].")
    if steps == "apart":
        return vectors[:, places]
    if len(places) == len(_STEPS):
        return vectors[:, 3:]
    said = (vectors[:, places] != 0).any(2).sum(1, keepdim=True).clamp_min(1)  # (V, 1)
    return (vectors[:, places].sum(1) / said).unsqueeze(1)


#: By the name of the strategy: what attaches it, and whose words it reads. Another system is one more line.
ATTACH: Final[dict[str, tuple[Callable[..., SequenceModel], str]]] = {
    "kar": (attach_kar, "kar"),
    "llm-cf": (attach_llm_cf, "llm-cf"),
    "slim-id": (attach_slim_id, "slim"),
    "slim-agnostic": (attach_slim_agnostic, "slim"),
}


def attach(
    name: str,
    model: SequenceModel,
    words: Words | None,
    dataset: SequenceDataset,
    cold: Cold,
    options: Mapping[str, Any],
) -> SequenceModel:
    """Attach knowledge in words to a plain student.

    Raises
    ------
    ConfigError
        The name or an option does not exist, or a value is not allowed.
    KnowledgeError
        There are no words, or another system's.
    """
    if name not in ATTACH:
        raise unknown_name("strategy of knowledge in words", name, ATTACH)
    function, maker = ATTACH[name]
    if words is None:
        raise KnowledgeError(
            f"strategy {name!r} needs what a language model wrote. Pass --knowledge t/ of: recdistill rationales "
            f"{maker}."
        )
    if words.maker != maker:
        raise KnowledgeError(
            f"strategy {name!r} reads rationales of {maker!r}, and these are of {words.maker!r}. Make them with: "
            f"recdistill rationales {maker}."
        )
    allowed = options_of(name)
    for option in options:
        if option not in allowed:
            raise unknown_name(f"option of {name}", option, allowed)
    return function(model, words, dataset, cold, **options)


def options_of(name: str) -> list[str]:
    """Return the options that a strategy of knowledge in words takes."""
    parameters = inspect.signature(ATTACH[name][0]).parameters.values()
    found = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        experts = inspect.signature(HybridExperts.__init__).parameters.values()
        found += [one.name for one in experts if one.kind is one.KEYWORD_ONLY]
    return found


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _known(words: Words, dataset: SequenceDataset) -> KnownRows:
    return KnownRows.of(dataset, words["row_ids"], words["places"])


def _both(
    model: SequenceModel, wrap: Callable[[ItemEncoder], ItemEncoder]
) -> tuple[ItemEncoder, ItemEncoder]:
    """Return the input's and the output's encoder, wrapped; one where the table is tied."""
    entry = wrap(model.item_encoder)
    return entry, entry if model.tied else wrap(model.output_encoder)


def _with(
    model: SequenceModel, entry: ItemEncoder, output: ItemEncoder, users: UserEncoder | None
) -> SequenceModel:
    bias = model.item_bias
    made = SequenceModel(model.student, entry, output, bias=bias is not None, user_encoder=users)
    made.item_bias = bias
    return made
