"""What ``recdistill teach bigrec`` was asked for, checked before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recdistill.cluster import Cluster
    from recdistill.teachers.finetuning.options import FinetuneOptions
    from recdistill.teachers.grounding.space import GroundOptions

STAGES = ("finetune", "generate", "ground")
#: Encoders that are the language model itself.
OWN_ENCODERS = ("tuned", "base", "mean")

#: What is not given on the command line. `official` is what BIGRec's authors ran, `modern` what the specification
#: of this teacher recommends.
PRESETS: dict[str, dict[str, Any]] = {
    "modern": {"decode": "constrained", "beams": 20, "ground_encoder": "mean", "whiten": 128},
    "official": {"decode": "beam", "beams": 4, "max_new_tokens": 128, "ground_encoder": "base", "whiten": -1},
}


@dataclass
class BigRecOptions:
    """What the command line said, with the preset's values where it said nothing."""

    model: str
    out: Path
    stage: str
    preset: str
    domain: str
    last_items: int
    max_tokens: int
    tune: str
    samples: str | None
    folds: int
    tuning: list[str] | None
    backend: str
    base_url: list[str] | None
    api: str
    api_key_env: str
    concurrency: int
    decode: str | None
    beams: int | None
    max_new_tokens: int | None
    student: Path | None
    lm_weight: float
    batch_tokens: int
    ground_encoder: str | None
    metric: str
    whiten: int | None
    beam_rule: str | None
    inject: str
    gamma: float | None
    zero_guard: float
    rows: int | None
    order_rows: int
    select_row_ids: Path | None
    splits: str
    prefixes: bool
    top_k: int
    dtype: str
    device: str | None
    quantize: str | None
    seed: int
    engine: str
    workers: int

    @classmethod
    def names(cls) -> set[str]:
        """Return the names of all options."""
        return set(cls.__dataclass_fields__)

    def resolved(self) -> list[str]:
        """Fill in the preset, refuse what cannot work before anything is spent, and return the stages."""
        from recdistill.errors import ConfigError, unknown_name
        from recdistill.teachers.backends import BACKENDS

        for kind, name, allowed in (
            ("stage", self.stage, (*STAGES, "all")),
            ("preset", self.preset, tuple(PRESETS)),
            ("backend", self.backend, tuple(BACKENDS)),
            ("fine-tuning", self.tune, ("auto", "lora", "full", "none")),
        ):
            if name not in allowed:
                raise unknown_name(kind, name, allowed)
        if self.samples is not None and not _count_or_all(self.samples):
            raise ConfigError(
                f"--samples is {self.samples!r}. Allowed: a number from 1, or all. Pass --samples 1024."
            )
        if self.order_rows < 0:
            raise ConfigError(f"--order-rows is {self.order_rows}. Allowed: from 0. Pass --order-rows 200.")
        if self.folds < 1 or (self.rows is not None and self.rows < 1):
            raise ConfigError(
                f"--folds is {self.folds} and --rows {self.rows}. Allowed: both from 1. Pass --folds 1, and leave "
                "--rows out for all rows."
            )
        if self.backend == "http":
            self._check_endpoint()
        if self.cluster is not None and self.backend == "http" and self.stage != "ground":
            raise ConfigError(
                "--engine ray has nothing to spread where an endpoint answers. Allowed with --backend http: --engine "
                "local, or --stage ground. Give several --base-url, and --concurrency."
            )
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.beam_rule is None:
            self.beam_rule = "beams_first" if self.decode == "constrained" else "first"
        self.check()
        return [
            name
            for name in STAGES
            if self.stage in (name, "all") and (name != "finetune" or self.tune != "none")
        ]

    def _check_endpoint(self) -> None:
        """An endpoint knows no catalogue, gives no vectors, and its model is used as it is."""
        from recdistill.errors import ConfigError

        if not self.base_url:
            raise ConfigError(
                "--backend http has no address. Needed: where the model is served. Pass --base-url "
                "http://127.0.0.1:8000/v1"
            )
        if self.decode not in (None, "greedy"):
            raise ConfigError(
                f"--decode {self.decode} needs the model in this process. Allowed with --backend http: greedy. Leave "
                "--decode out."
            )
        encoder = self.ground_encoder or PRESETS[self.preset]["ground_encoder"]
        if self.stage in ("all", "ground") and encoder in OWN_ENCODERS:
            raise ConfigError(
                f"the model behind an endpoint gives no vectors, so grounding with {encoder!r} cannot work. Allowed: a "
                "sentence encoder. Pass --ground-encoder FOLDER_OR_NAME."
            )
        if self.stage == "finetune":
            raise ConfigError(
                "--backend http tunes nothing: the endpoint's model is used as it is. Allowed there: the stages "
                "generate and ground. Tune with --backend hf, serve the result, and pass --stage generate."
            )
        self.decode, self.beams, self.tune = "greedy", 1, "none"

    def check(self) -> None:
        """Build every part once: a wrong value is said now, not after hours of work."""
        from recdistill.errors import ConfigError
        from recdistill.teachers.generation.decoding import DecodeOptions
        from recdistill.teachers.grounding.encoders import SentenceEncoder

        DecodeOptions(mode=self.decode, beams=self.beams or 1, max_new_tokens=self.max_new_tokens or 1)  # type: ignore[arg-type]
        if self.student is not None and self.decode != "constrained":
            raise ConfigError(
                f"--student cannot be mixed into {self.decode} decoding. Allowed: constrained, where every answer is "
                "an item. Pass --decode constrained."
            )
        if self.ground_encoder not in OWN_ENCODERS:
            SentenceEncoder(str(self.ground_encoder))
        if self.inject not in ("none", "popularity") and not Path(self.inject).is_dir():
            raise ConfigError(
                f"--inject {self.inject} is no run folder. Allowed: none, popularity, or a folder of recdistill "
                "distill. Pass --inject popularity."
            )
        _ = self.ground, self.finetuning

    @property
    def finetuning(self) -> FinetuneOptions:
        """The preset with what the command line says."""
        import yaml

        from recdistill.errors import ConfigError, unknown_name
        from recdistill.teachers.finetuning.options import PRESETS as FINETUNING

        start = FINETUNING[self.preset]
        given: dict[str, Any] = {
            "last_items": self.last_items,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        if self.tune not in ("none", "auto"):
            given["method"] = self.tune
        if self.samples is not None:
            given["samples"] = 0 if self.samples == "all" else int(self.samples)
        for text in self.tuning or []:
            name, equals, value = text.partition("=")
            if not equals:
                raise ConfigError(
                    f"--tuning {text} has no value. Allowed: NAME=VALUE. Pass --tuning epochs=3."
                )
            if name not in asdict(start):
                raise unknown_name("option of fine-tuning", name, asdict(start))
            given[name] = _number(yaml.safe_load(value))
        return replace(start, **given)

    @property
    def cluster(self) -> Cluster | None:
        """Whose workers generate and ground; None: this process."""
        from recdistill.cluster import cluster_of

        return cluster_of(self.engine, self.workers)

    @property
    def ground(self) -> GroundOptions:
        """How texts are grounded."""
        from recdistill.teachers.grounding.space import GroundOptions

        wide = None if self.whiten is None or self.whiten < 0 else self.whiten
        return GroundOptions(self.metric, wide, str(self.beam_rule), self.top_k)


def _count_or_all(text: str) -> bool:
    return text == "all" or (text.isdigit() and int(text) > 0)


def _number(value: Any) -> Any:
    """Return the number that YAML leaves as text, such as 1e-4."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
