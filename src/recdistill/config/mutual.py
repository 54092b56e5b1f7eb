"""What ``recdistill mutual`` can be told, and how it is carried out: a student's config, and both models' rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import yaml
from torch import Tensor

from recdistill.config.build import build_model, construct, default_filter_seen, student_spec
from recdistill.config.overrides import apply_overrides, read_yaml
from recdistill.config.resolve import describe, resolve, write_config
from recdistill.config.schema import RunConfig
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, RunError, unknown_name
from recdistill.export import Recommender
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.knowledge import Knowledge
from recdistill.losses import LOSSES
from recdistill.runs import atomic_file, fingerprint
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.partner import ItemHeadPartner
from recdistill.train import TrainOptions
from recdistill.train.mutual import Listener, MutualOptions, StudentSide, mutual, round_folders

#: Recipe of the kept student's config: its name in tables.
RECIPE: Final = "mutual"
#: File of a run folder with both models' options.
FILE: Final = "mutual.yaml"
_MUTUAL: Final = tuple(option.name for option in fields(MutualOptions))
#: An item of the language model has the student's width; which rows it answers is said by ``ranks`` and ``folds``.
_TEACHER: Final = tuple(f.name for f in fields(ItemHeadOptions) if f.name not in ("id_size", "folds"))
#: Sections and keys of a student's config that mutual teaching decides itself, and why.
_OWN: Final = {
    "knowledge": "each round makes its own",
    "strategies": "the student learns from its partner alone",
    "words": "the student reads items and history alone; its partner brings what language knows",
    "select": "every row is weighted by its ranks",
    "recipe": "it is the name of the run in tables; use label",
    "dataset": "it is said by --dataset",
    "train.coverage": "each partner answers all rows",
    "train.walks": "its partner writes none",
    "train.prior": "its partner would learn from scores without it",
}


def resolve_mutual(
    flags: Mapping[str, Any], mutual_flags: Mapping[str, Any], words: Sequence[str]
) -> tuple[RunConfig, MutualOptions, ItemHeadOptions]:
    """Return the checked config of the student, and the options of both.

    Parameters
    ----------
    flags
        Values of the command line's flags that were given, in the shape of the student's config.
    mutual_flags
        The same for `MutualOptions`.
    words
        ``key=value``: a name of `MutualOptions`, ``teacher.`` and a name of `ItemHeadOptions`, or a key of the
        student's config.

    Raises
    ------
    ConfigError
        A name, key or value that is not allowed.
    """
    said: dict[str, dict[str, Any]] = {"mutual": dict(mutual_flags), "teacher": {}}
    rest = []
    for word in words:
        key = word.partition("=")[0].strip()
        if key in _MUTUAL or key.startswith("teacher."):
            owner, name = ("mutual", key) if key in _MUTUAL else ("teacher", key.removeprefix("teacher."))
            if owner == "teacher" and name not in _TEACHER:
                raise unknown_name("option of the teacher", name, _TEACHER)
            said[owner][name] = _value(word)
        else:
            _refuse_own(key)
            rest.append(word)
    options: MutualOptions = _made(MutualOptions, said["mutual"])
    teacher: ItemHeadOptions = _made(ItemHeadOptions, said["teacher"])
    return _student({**flags, "recipe": recipe_of(options)}, rest), options, teacher


def recipe_of(options: MutualOptions) -> str:
    """Return the recipe's name in tables: `RECIPE`, and the ablations among the options."""
    changes = {
        "no weights": options.weights == "none",
        f"ranks of {options.ranks}": options.weights != "none" and options.ranks != "live",
        "no refresh": not options.refresh and options.rounds > 1,
        "one round": options.rounds == 1,
    }
    return ", ".join([RECIPE, *(name for name, changed in changes.items() if changed)])


def run_mutual(
    config: RunConfig,
    options: MutualOptions,
    teacher: ItemHeadOptions,
    lm: Any,
    out: Path,
    *,
    text: npt.NDArray[np.float32] | None = None,
    encoder: str | None = None,
    instruction: str = "",
    dataset: SequenceDataset | None = None,
    listener: Listener | None = None,
) -> Recommender:
    """Carry out mutual teaching; the folder is then an ordinary run, and so is ``rounds/N/student`` of each round.

    Parameters
    ----------
    config, options, teacher
        From `resolve_mutual`.
    lm
        A `LanguageModel`. It is trained in place.
    out
        Run folder.
    text, encoder
        ``(I, D_t)`` item text vectors, or None, and the name of what made them.
    instruction
        Words in front of every history.
    dataset
        That of the config, if it is loaded.
    listener
        Hears how it goes.
    """
    dataset = dataset or SequenceDataset.load(config.dataset)
    vectors = _item_embeddings(config, dataset, text)
    train = config.train.model_dump()
    batches = {key: train.pop(key) for key in ("batch_size", "supervision", "negatives")}
    for key in ("coverage", "walks", "prior"):
        train.pop(key)
    student = StudentSide(
        lambda: build_model(config, dataset.item_count, vectors, dataset.cold_items),
        lambda: construct("loss", LOSSES, config.loss.name, config.loss.options),
        student_spec(config),
        TrainOptions(**train, seed=config.seed),
        length=config.student.length,
        filter_seen=default_filter_seen(dataset) if config.filter_seen is None else config.filter_seen,
        **batches,
    )

    def make_teacher(table: Tensor) -> ItemHeadPartner:
        return ItemHeadPartner(lm, table, text, teacher, seed=config.seed, instruction=instruction)

    facts = {
        "model": lm.name,
        "model_fingerprint": lm.fingerprint,
        "encoder": encoder,
        "text_fingerprint": None if text is None else fingerprint(text.tobytes()),
        "instruction": instruction,
        "options": asdict(teacher),
    }
    if config.item_encoder.name != "ids":
        facts["item_encoder"] = config.item_encoder.model_dump()
    _begin(out, config, {"mutual": asdict(options), "teacher": facts})
    found = mutual(dataset, student, make_teacher, out=out, options=options, facts=facts, listener=listener)
    for folder in round_folders(out):
        number = int(folder.name)
        write_config(round_config(config, number), folder / "student" / "config.yaml")
    return found


def _item_embeddings(
    config: RunConfig, dataset: SequenceDataset, text: npt.NDArray[np.float32] | None
) -> Knowledge | None:
    """Return the item text that the student's item encoder reads, which is the language model's; None: it reads none.

    Raises
    ------
    ConfigError
        It reads some, and there is none; or the encoder does not exist.
    """
    name = config.item_encoder.name
    if name not in ITEM_ENCODERS:
        raise unknown_name("item encoder", name, ITEM_ENCODERS)
    if "item_embeddings" not in ITEM_ENCODERS[name].requires:
        return None
    if text is None:
        raise ConfigError(
            f"item_encoder.name is {name!r}, which forms item vectors from item text, and there is no item text. "
            "Allowed with --item-text none: ids. Pass --item-text tfidf, or item_encoder.name=ids"
        )
    return Knowledge(np.zeros(0, dtype=np.int64), dataset.item_count, item_embeddings=text)


def _begin(out: Path, config: RunConfig, settings: dict[str, Any]) -> None:
    """Write both settings, or refuse a folder that was begun with others before anything in it changes."""
    if (out / FILE).is_file():
        before = read_yaml(out / FILE)
        old, new = ({**said["mutual"], **said["teacher"]} for said in (before, settings))
        changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        if changed:
            raise RunError(
                f"{out} holds a run that was begun with other settings ({', '.join(changed)}). Only one with the same "
                "settings goes on: choose another --out, or pass --overwrite."
            )
    write_config(config, out / "config.yaml")
    with atomic_file(out / FILE) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def round_config(config: RunConfig, number: int) -> RunConfig:
    """Return the config of a round's student: that of round 0 is a student without a teacher."""
    if not number:
        label = f"{config.label}, round 0" if config.label else None
        return config.model_copy(update={"recipe": "none", "label": label})
    return config.model_copy(update={"label": f"{describe(config)}, round {number}"})


def _student(flags: Mapping[str, Any], words: Sequence[str]) -> RunConfig:
    known = {word.partition("=")[0].strip().partition(".")[0] for word in words}
    try:
        return resolve(flags, strategy=None, file=None, words=words)
    except ConfigError:
        for name in known:
            _refuse_unknown(flags, name)
        raise


def _refuse_unknown(flags: Mapping[str, Any], name: str) -> None:
    """Name the nearest of all keys, where a word's first part is none of the student's."""
    plain = resolve(flags, strategy=None, file=None, words=[])
    parts = (plain.student.name, plain.loss.name)
    keys = [key for key in RunConfig.model_fields if key not in _OWN]
    if name not in (*keys, *parts):
        allowed = [*_MUTUAL, "teacher.<option>", *keys, *(f"{part}.<option>" for part in parts)]
        raise unknown_name("key", name, allowed)


def _refuse_own(key: str) -> None:
    found = next((name for name in (key, key.partition(".")[0]) if name in _OWN), None)
    if found is not None:
        raise ConfigError(
            f"key {key!r} cannot be set in mutual teaching: {_OWN[found]}. Allowed: {', '.join(_MUTUAL)}, "
            "teacher.<option>, and the student's student., loss., train. For the others: recdistill distill --help"
        )


def _value(word: str) -> Any:
    """Return the value of a ``key=value`` word, read as YAML."""
    key, sign, _ = word.partition("=")
    if not sign:
        raise ConfigError(f"{word!r} is no override. Write key=value, e.g. {key}=1.")
    return apply_overrides({}, [f"label={word.partition('=')[2]}"])["label"]


def _made(kind: Any, given: Mapping[str, Any]) -> Any:
    """Return options of a kind; a value of another type than the default's is refused."""
    defaults = {option.name: option.default for option in fields(kind)}
    checked = {}
    for name, value in given.items():
        default = defaults[name]
        wanted = type(default)
        if wanted is float and not isinstance(value, bool):
            value = _float(value)
        if type(value) is not wanted:
            raise ConfigError(
                f"{name} is {value!r}. Allowed: a value like {default!r}, its default. Pass {name}={default}"
            )
        checked[name] = value
    return kind(**checked)


def _float(value: Any) -> Any:
    """Return what a number reads as; YAML takes 1e-3 for a word."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def require_mutual_run(folder: Path) -> None:
    """Refuse a folder that mutual teaching did not write.

    Raises
    ------
    RunError
        There is no `FILE`.
    """
    if not (folder / FILE).is_file():
        raise RunError(
            f"{folder} holds no rounds (no {FILE}). Allowed: run folders of recdistill mutual. Leave --rounds out, or "
            "make one with: recdistill mutual --dataset d/ --model LM --out r/"
        )
