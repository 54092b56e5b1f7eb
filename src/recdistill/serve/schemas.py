"""What is asked and what is answered, as types; FastAPI checks requests by them and describes them in ``/docs``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, StringConstraints

#: A raw id or a title; a whole number is taken for its digits.
Name = Annotated[StrictStr, StringConstraints(min_length=1)] | StrictInt
ModelName = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_HISTORY = "Raw ids or titles, oldest first."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filters(_Request):
    """What may be answered."""

    k: StrictInt = Field(20, ge=1, description="Items of a list.")
    exclude_seen: bool = Field(True, strict=True, description="Leave out the items of the history.")
    allow: list[Name] | None = Field(None, description="Only these items; unknown ones follow `unknown`.")
    deny: list[Name] | None = Field(None, description="None of these items.")
    candidates: list[Name] | None = Field(
        None, description="Rank only these items; as `allow`, and both must hold."
    )
    category: dict[StrictStr, list[StrictStr]] | None = Field(
        None, description="Column to values: an item must have one of the values of each column."
    )
    unknown: Literal["skip", "refuse"] = Field(
        "refuse", description="Names that are no id and no title: leave them out, or refuse the request."
    )


class RecommendRequest(Filters):
    """One history, or many."""

    history: list[Name] | None = Field(None, description=_HISTORY, examples=[["Toy Story (1995)", "Heat"]])
    histories: list[list[Name]] | None = Field(None, description="Many histories, in place of `history`.")
    model: ModelName | None = Field(None, description="The model that answers; none: by the traffic split.")
    user: StrictStr | None = Field(
        None, description="Any key: the same key always meets the same model of a split. It is not stored."
    )


class SimilarRequest(_Request):
    """An item whose neighbours are wanted."""

    item: Name
    k: StrictInt = Field(20, ge=1)
    model: ModelName | None = None


class ExplainRequest(_Request):
    """A history and one answer to it."""

    history: list[Name] = Field(description=_HISTORY)
    item: Name
    model: ModelName | None = None
    unknown: Literal["skip", "refuse"] = "refuse"


class Item(BaseModel):
    """An item of the catalogue."""

    id: str
    title: str


class ScoredItem(Item):
    """An item of an answer."""

    score: float


class Answer(BaseModel):
    """The list after one history."""

    items: list[ScoredItem]
    unknown: list[str] = Field(description="Names of the history that were left out.")


class RecommendAnswer(BaseModel):
    """One list a history."""

    model: str
    version: str
    ms: float = Field(description="Milliseconds of the model, without the network.")
    answers: list[Answer]


class CompareAnswer(BaseModel):
    """The same request answered by every model."""

    models: list[RecommendAnswer]
    shared: list[list[int]] = Field(
        description="Items that the first list of two models have in common, model by model."
    )
    teacher: Answer | None = Field(
        None, description="What the teacher knew of this history, where it is stored."
    )


class SimilarAnswer(BaseModel):
    """The nearest items by cosine."""

    model: str
    item: Item
    items: list[ScoredItem]


class EffectAnswer(Item):
    """An item of a history: the score with it minus the score without it."""

    effect: float


class ExplainAnswer(BaseModel):
    """Which items of the history moved a score most."""

    model: str
    item: ScoredItem
    history: list[EffectAnswer]
    unknown: list[str]


class ItemsAnswer(BaseModel):
    """Titles that hold the words of a query."""

    items: list[Item]


class ModelFacts(BaseModel):
    """One model that is served."""

    name: str
    version: str
    share: float
    items: int
    length: int
    fingerprint: str
    loaded: str
    categories: dict[str, list[str]]
    config: dict[str, Any]


class ModelsAnswer(BaseModel):
    """What this server answers with."""

    models: list[ModelFacts]
    limits: dict[str, float]
    plots: list[str]
    examples: int


class Example(BaseModel):
    """A history whose teacher list is stored."""

    history: list[Item]
    target: Item | None


class ExamplesAnswer(BaseModel):
    """Histories to start with."""

    examples: list[Example]


class Health(BaseModel):
    """Whether the process lives, or is ready to answer."""

    status: str


class Error(BaseModel):
    """What is wrong, and what is allowed."""

    error: str
