"""What a run can be told. Every key is here; an unknown one is refused with a suggestion."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recdistill.types import HELD_OUT, Split

Options = dict[str, Any]


class Strict(BaseModel):
    """A section that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid")


class StudentConfig(Strict):
    """The student: its name, its variant and its constructor's options."""

    name: str = "sasrec"
    variant: Literal["paper", "modern"] = "modern"
    embedding_size: int = Field(64, ge=1, description="d, width of the item vectors")
    length: int = Field(50, ge=1, description="L, longest history it reads")
    tied: bool = Field(
        True, description="one item table for input and output, or an own output table with a bias"
    )
    options: Options = Field(default_factory=dict)


class PartConfig(Strict):
    """A loss: its name and its constructor's options."""

    name: str
    options: Options = Field(default_factory=dict)


class StrategyConfig(PartConfig):
    """A strategy and its weight λ in the total loss (eq. 11)."""

    weight: float = Field(0.5, ge=0)


class EncoderConfig(PartConfig):
    """How item vectors are formed, and on which side of the student."""

    name: str = "ids"
    inject: Literal["input", "output", "both"] = "both"
    free_cold: bool = Field(
        False,
        description="items that training never saw get a free vector like all others; else their text forms theirs",
    )


class WordsConfig(Strict):
    """Knowledge in words: which strategy reads it, and the folder of ``recdistill rationales``."""

    name: str | None = None
    folder: str | None = None
    options: Options = Field(default_factory=dict)


class SelectConfig(Strict):
    """Which training rows learn from the teacher; the others learn from the data alone."""

    how: Literal["all", "band", "confidence", "random", "budget", "file"] = "all"
    share: float = Field(0.2, gt=0, le=1, description="of the rows, for band, confidence and random")
    centre: float = Field(0.5, ge=0, le=1, description="of the band: 0 the easiest rows, 1 the hardest")
    count: int = Field(500, ge=1, description="rows of the budget")
    effective: float = Field(
        0.1, ge=0, le=1, description="budget: share of answers thought to correct the student"
    )
    similar: float = Field(0.5, ge=0, le=1, description="budget: share thought to be what the student says")
    run: str | None = Field(None, description="run of a student without a teacher, for band and budget")
    file: str | None = Field(None, description="parquet or JSON file of row ids, for file")
    seed: int = Field(0, ge=0, description="of random and budget")


class TrainConfig(Strict):
    """How to train; see `recdistill.train.TrainOptions` and `BatchLoader`."""

    epochs: int = Field(200, ge=1)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adam", "adamw"] = "adam"
    warmup_steps: int = Field(0, ge=0)
    patience: int = Field(10, ge=1)
    evaluate_every: int = Field(1, ge=1)
    metric: str = Field("ndcg@20", pattern=r"^(hr|ndcg|mrr)@(1|10|20)$")
    repeats: Literal["keep", "drop", "pick"] = Field(
        "keep",
        description="whether items of the history may be recommended; pick: as validation likes it better",
    )
    gradient_clip: float = Field(0.0, ge=0)
    precision: Literal["float32", "bf16"] = "float32"
    checkpoint_minutes: float = Field(10.0, gt=0)
    supervision: Literal["last", "all"] = "last"
    negatives: int = Field(1, ge=1)
    coverage: Literal["error", "skip", "mask"] = "error"
    prior: Literal["none", "pick"] = Field(
        "none",
        description="pick: validation says how much popularity, and being bought of late, count in the item biases",
    )
    walks: bool = Field(
        False,
        description="learn from the sequences too that the teacher wrote itself (recdistill teach ... --walks)",
    )


class RefitConfig(Strict):
    """A last training on more rows, with what validation picked before; ``recdistill refit`` fills it in."""

    rows: Literal["train", "valid", "all"] = Field(
        "train", description="valid: training and validation rows; all: those of the test as well"
    )
    cold_stretch: float | None = Field(
        None, gt=0, description="length of cold items' vectors that the earlier run picked"
    )
    prior: tuple[float, float] | None = Field(None, description="the item prior that the earlier run picked")
    counts_only: bool = Field(
        False, description="no training: the earlier run's student, whose prior counts the new rows as well"
    )
    run: str | None = Field(None, description="the earlier run")

    @property
    def learned(self) -> tuple[Split, ...]:
        """Splits that are learned from besides the training rows."""
        return {"train": (), "valid": HELD_OUT[:1], "all": HELD_OUT}[self.rows]


class RunConfig(Strict):
    """One run of ``recdistill distill``."""

    dataset: str
    knowledge: str | None = None
    student: StudentConfig = Field(default_factory=StudentConfig)
    loss: PartConfig = Field(default_factory=lambda: PartConfig(name="ce"))
    strategies: list[StrategyConfig] = Field(default_factory=list)
    item_encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    words: WordsConfig = Field(default_factory=WordsConfig)
    select: SelectConfig = Field(default_factory=SelectConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    refit: RefitConfig = Field(default_factory=RefitConfig)
    filter_seen: bool | None = Field(
        None,
        description="leave items of the history out of the ranking; None: as is usual for the dataset's split",
    )
    seed: int = Field(0, ge=0)
    recipe: str | None = Field(None, description="what --strategy was given, for the run's name in tables")
    label: str | None = Field(None, description="name of the run in tables")
