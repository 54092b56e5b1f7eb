"""Named combinations of strategies and an item encoder, as plain data.

A recipe says what a student learns from its teacher, and nothing of student, loss or training; one that was tuned as a
whole has a `preset` for these too. The ablations of the DLLM2Rec paper are combinations of options, see `ABLATIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from recdistill.errors import ConfigError, KnowledgeError, unknown_name
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.knowledge import WALKS
from recdistill.strategies import STRATEGIES

__all__ = ["ABLATIONS", "RECIPES", "Recipe", "missing_fields", "recipe"]

Options = Mapping[str, Any]
#: What a preset can say beside what is learned.
_SECTIONS: Final = ("student", "loss", "train")
Term = tuple[float, str, Options]


@dataclass(frozen=True)
class Recipe:
    """What a student learns from its teacher.

    Attributes
    ----------
    name
        What it is called.
    about
        One line for people.
    strategies
        Terms ``(λ, name, options)`` of the loss, λ at least 0.
    item_encoder
        ``(name, options)``, or None: a plain table.
    words
        ``(name, options)`` of what reads knowledge in words (`recdistill.config.attach`), or None.
    preset
        Student, loss and training that go with it, as sections of a config laid over the modern preset, or None.
        ``--recipe`` takes them, ``--strategy`` does not.
    """

    name: str
    about: str
    strategies: tuple[Term, ...] = ()
    item_encoder: tuple[str, Options] | None = None
    words: tuple[str, Options] | None = None
    preset: Mapping[str, Options] | None = None

    @property
    def requires(self) -> frozenset[str]:
        """What its parts need of the knowledge, given their options: fields, and ``walks``."""
        fields = [STRATEGIES[name](**options).requires for _, name, options in self.strategies]
        encoder = ITEM_ENCODERS[self.item_encoder[0]].requires if self.item_encoder else frozenset()
        walks = {WALKS} if (self.preset or {}).get("train", {}).get(WALKS) else frozenset()
        return frozenset().union(encoder, walks, *fields)


_PAPER: Final[Options] = {
    "k": 10,
    "gamma_position": 0.3,
    "gamma_confidence": 0.5,
    "gamma_consistency": 0.1,
    "beta_position": 1.0,
    "beta_confidence": 1.0,
}

RECIPES: Final[dict[str, Recipe]] = {
    entry.name: entry
    for entry in (
        Recipe("none", "No teacher: the baseline."),
        Recipe("rd", "Ranking Distillation (KDD 2018).", ((0.5, "rd", {}),)),
        Recipe("cd", "Collaborative Distillation (ICDM 2019).", ((0.5, "cd", {}),)),
        Recipe("rrd", "Relaxed Ranking Distillation (CIKM 2020).", ((0.01, "rrd", {}),)),
        Recipe("dcd", "Dual Correction Distillation, its user side (CIKM 2021).", ((0.01, "dcd", {}),)),
        Recipe("unkd", "Unbiased Knowledge Distillation (WSDM 2023).", ((0.5, "unkd", {}),)),
        Recipe("hetcomp", "HetComp: easy-to-hard from checkpoints (WWW 2023).", ((0.01, "hetcomp", {}),)),
        Recipe("rce", "RCE-KD: cross-entropy on nearly closed sets (ICLR 2026).", ((0.5, "rce", {}),)),
        Recipe("soft_labels", "Divergence from the teacher's distribution.", ((0.5, "soft_labels", {}),)),
        Recipe("hint", "Regression on the teacher's item vectors (ICLR 2015).", ((0.5, "hint", {}),)),
        Recipe(
            "dllm2rec",
            "DLLM2Rec (RecSys 2024) as its paper writes it.",
            ((0.5, "importance", {"variant": "paper", **_PAPER}),),
            ("collaborative", {"weight": 0.2}),
        ),
        Recipe(
            "dllm2rec-official",
            "DLLM2Rec as its code computes it; with loss dros set importance.dros_weight to its alpha.",
            ((0.7, "importance", {"variant": "official", **_PAPER}),),
            ("collaborative", {"weight": 0.3, "standardise": False}),
        ),
        Recipe(
            "dllm2rec-corrected",
            "DLLM2Rec with a confidence that tells rows apart, and right negatives.",
            ((0.5, "importance", {"variant": "corrected", **_PAPER}),),
            ("collaborative", {"weight": 0.2}),
        ),
        Recipe(
            "best",
            "Text on both sides of the student, and the order of the teacher's forty best (RRD).",
            ((0.1, "rrd", {}),),
            ("collaborative", {"weight": 0.2}),
            preset={
                "student": {"embedding_size": 128, "options": {"dropout": 0.4}},
                "loss": {"name": "sampled_ce"},
                "train": {"learning_rate": 2e-3, "patience": 5, "epochs": 40, "walks": True},
            },
        ),
        Recipe("kar", "KAR: a language model's words on users and items (RecSys 2024).", words=("kar", {})),
        Recipe(
            "llm-cf",
            "LLM-CF: explained decisions of the past, read in context (CIKM 2024).",
            words=("llm-cf", {}),
        ),
        Recipe("slim-id", "SLIM: a rationale in steps beside the ids (WWW 2024).", words=("slim-id", {})),
        Recipe("slim-agnostic", "SLIM without ids: any catalogue.", words=("slim-agnostic", {})),
    )
}
"""The weights λ: the paper tunes λ_d in 0.1 .. 1.0, 0.5 is the middle; 0.7 and 0.3 are the code's README.
A loss that sums over a list of 40 to 100 items (rrd, dcd, hetcomp) has 0.01: about the size of the student's own."""

#: A teacher whose temperature was fitted to validation rows is learned from as it is.
_CALIBRATED: Final[Options] = {"weight": 2.0, "temperature": 1.0}

ABLATIONS: Final[dict[str, dict[str, Mapping[str, Options | None]]]] = {
    "table7": {
        "w/o all_r": {"importance": None},
        "w/o w_p": {"importance": {"gamma_position": 0.0}},
        "w/o w_c": {"importance": {"gamma_confidence": 0.0}},
        "w/o w_o": {"importance": {"gamma_consistency": 0.0}},
        "DLLM2Rec": {},
    },
    "table8": {
        "w/o all_e": {"collaborative": None},
        "w/o offset": {"collaborative": {"offset": False}},
        "Hint": {"collaborative": None, "hint": {}},
        "HTD": {"collaborative": None, "htd": {}},
        "DLLM2Rec": {},
    },
    "best": {
        "best": {},
        "w/o text": {"collaborative": None},
        "w/o ranking": {"rrd": None},
        "w/o walks": {"train": {"walks": False}},
        "w/o teacher": {"collaborative": None, "rrd": None, "train": {"walks": False}},
        "cross-entropy": {"loss": {"name": "ce"}},
        "half the width": {"student": {"embedding_size": 64}},
        "usual dropout": {"student": {"options": {}}},
        "repeats kept": {"train": {"repeats": "keep"}},
    },
    "levers": {
        "best": {},
        "soft labels": {"rrd": None, "soft_labels": _CALIBRATED},
        "soft labels too": {"soft_labels": _CALIBRATED},
        "DLLM2Rec's ranking": {"rrd": None, "importance": {"variant": "corrected", **_PAPER}},
        "first twenty": {"rrd": {"k": 20}},
        "AlphaFuse": {"collaborative": None, "alphafuse": {}},
        "two branches": {"collaborative": None, "two_branch": {}},
        "gBCE": {"loss": {"name": "gbce"}, "train": {"negatives": 128}},
        "item prior": {"train": {"prior": "pick"}},
        "one block": {"student": {"options": {"dropout": 0.4, "blocks": 1}}},
    },
}
"""Rows of Tables 7 and 8, of the preset `best` without one lever, and with another in a lever's place, as overrides:
``recipe("dllm2rec", **ABLATIONS["table7"]["w/o w_c"])``."""


def recipe(name: str, **overrides: Options | None) -> Recipe:
    """Return a recipe, with parts changed, added or left out.

    Parameters
    ----------
    name
        A name in `RECIPES`.
    **overrides
        By the name of a strategy, an item encoder or a section of the preset (``student``, ``loss``, ``train``): None
        leaves the part out, options are laid over those of the recipe, and a part that the recipe does not have is
        added. A strategy's option ``weight`` is its λ (0.5 for one that is added).

    Examples
    --------
    >>> recipe("dllm2rec", importance={"weight": 0.8}, collaborative=None).strategies[0][0]
    0.8

    Raises
    ------
    ConfigError
        A name does not exist, or two item encoders are left.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    chosen = RECIPES[name]
    terms: dict[str, tuple[float, Options]] = {
        part: (weight, options) for weight, part, options in chosen.strategies
    }
    encoders: dict[str, Options] = dict([chosen.item_encoder]) if chosen.item_encoder else {}
    preset = dict(chosen.preset) if chosen.preset is not None else {}
    for part, options in overrides.items():
        if part in STRATEGIES:
            _override_term(terms, part, options)
        elif part in ITEM_ENCODERS:
            _override_part(encoders, part, options)
        elif part in _SECTIONS:
            _override_part(preset, part, options)
        else:
            raise unknown_name("strategy or item encoder", part, [*STRATEGIES, *ITEM_ENCODERS, *_SECTIONS])
    if len(encoders) > 1:
        raise ConfigError(
            f"recipe {name!r} is left with the item encoders {', '.join(encoders)}. Allowed: one. "
            f"Leave the other out with {next(iter(encoders))}=None."
        )
    strategies = tuple((weight, part, options) for part, (weight, options) in terms.items())
    encoder = next(iter(encoders.items()), None)
    return Recipe(name, chosen.about, strategies, encoder, chosen.words, preset or None)


def _override_term(terms: dict[str, tuple[float, Options]], part: str, options: Options | None) -> None:
    if options is None:
        terms.pop(part, None)
        return
    weight, before = terms.get(part, (0.5, {}))
    merged = {**before, **options}
    terms[part] = (float(merged.pop("weight", weight)), merged)


def _override_part(parts: dict[str, Options], part: str, options: Options | None) -> None:
    if options is None:
        parts.pop(part, None)
    else:
        parts[part] = {**parts.get(part, {}), **options}


def missing_fields(requires: Iterable[str], available: Iterable[str]) -> KnowledgeError | None:
    """Return the error that names the fields the knowledge lacks, or None if it has all.

    Parameters
    ----------
    requires
        Fields that are needed, e.g. `Recipe.requires` or a strategy's ``requires``.
    available
        Fields the knowledge has.
    """
    available = sorted(available)
    missing = sorted(set(requires) - set(available))
    if not missing:
        return None
    return KnowledgeError(
        f"the knowledge lacks {', '.join(missing)}; it has {', '.join(available) or 'nothing'}. "
        f"Needed: {', '.join(sorted(requires))}. "
        "Make such knowledge with recdistill teach graph or recdistill teach embedding (walks: --walks), "
        "or see what a folder holds with: recdistill knowledge show DIR"
    )
