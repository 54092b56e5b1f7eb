"""Which lines each table of the paper has, given the students, strategies and teachers of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from recdistill.config.overrides import merge
from recdistill.config.resolve import recipe_section
from recdistill.errors import ConfigError
from recdistill.evaluate.report import Kind
from recdistill.experiments.naming import PLAIN, available_strategies, parts_of, section_of, titled
from recdistill.experiments.plan import Line
from recdistill.experiments.published import STRATEGY_ROWS
from recdistill.recipes import ABLATIONS, RECIPES, recipe

if TYPE_CHECKING:
    from recdistill.experiments.planner import Planner

__all__ = ["LINES", "SWEEP"]

#: Figure 2: key → its name in the figure, and the values that are tried.
SWEEP: Final[Mapping[str, tuple[str, tuple[float, ...]]]] = {
    "importance.weight": ("λ_d", (0.1, 0.3, 0.5, 0.7, 1.0)),
    "importance.gamma_position": ("γ_p", (0.0, 0.1, 0.3, 0.5, 1.0)),
    "importance.gamma_confidence": ("γ_c", (0.0, 0.1, 0.3, 0.5, 1.0)),
    "importance.gamma_consistency": ("γ_o", (0.0, 0.1, 0.3, 0.5, 1.0)),
}


def _plain_lines(planner: Planner, strategies: list[str]) -> None:
    planner.plain()


def _no_lines(planner: Planner, strategies: list[str]) -> None:
    """Table 4 describes the data."""


def _strategy_lines(planner: Planner, strategies: list[str]) -> None:
    known = available_strategies()
    if strategies == ["all"]:
        chosen = known
    else:
        chosen = strategies or [name for name in STRATEGY_ROWS if name in known]
        for name in chosen:
            section_of(name)  # refuses names that do not exist
    planner.plain()
    for name in chosen:
        planner.strategy(name)


def _method_lines(planner: Planner, strategies: list[str]) -> None:
    planner.plain()
    for name in strategies or ["dllm2rec"]:
        planner.strategy(name)


def _best_lines(planner: Planner, strategies: list[str]) -> None:
    """Add the plain student, tuned, the preset, and the preset without one lever, or with another in its place.

    Of several teachers the first is asked about the levers; with the others there is the whole preset alone.
    """
    if strategies:
        raise ConfigError(
            f"{planner.table} takes the preset best apart, not {', '.join(strategies)}. Leave --strategies "
            "out, or compare strategies with recdistill reproduce table5 --variant modern."
        )
    planner.plain()
    for teacher in planner.teachers:
        for name, changes in ABLATIONS[planner.table].items():
            chosen = recipe("best", **changes)
            section = merge(chosen.preset or {}, recipe_section(chosen))
            taught = bool(chosen.strategies or chosen.item_encoder)
            if changes and teacher is not planner.teachers[0]:
                continue
            title = titled(name, teacher) if taught else name
            label = f"{planner.student} ({planner.variant}) {title}"
            source = "best" if taught else PLAIN
            config = planner.config({"recipe": source, **section}, teacher if taught else None, label)
            if planner.served(title, config, teacher):
                kind: Kind = "distilled" if taught else "student"
                planner.lines.append(
                    Line(planner.student, title, kind, config, teacher=teacher.label, row=name)
                )


def _base(strategies: list[str], table: str) -> str:
    """Return the recipe that an ablation takes apart."""
    if len(strategies) > 1 or (strategies and "importance" not in _requires_parts(strategies[0])):
        raise ConfigError(
            f"{table} takes one DLLM2Rec recipe apart, not {', '.join(strategies)}. Allowed: "
            f"{', '.join(name for name in RECIPES if name.startswith('dllm2rec'))}."
        )
    return strategies[0] if strategies else "dllm2rec"


def _requires_parts(name: str) -> set[str]:
    return {part for _, part, _ in RECIPES[name].strategies} if name in RECIPES else set()


def _ablation_lines(planner: Planner, strategies: list[str]) -> None:
    """Add the rows of an ablation. Those that only take something away keep what the whole was tuned to."""
    base = _base(strategies, planner.table)
    for teacher in planner.teachers:
        whole = planner.config({"recipe": base, **section_of(base)}, teacher, None)
        study = planner.study(titled(base, teacher), whole)
        for name, changes in ABLATIONS[planner.table].items():
            section = recipe_section(recipe(base, **changes))
            label = f"{planner.student} ({planner.variant}) {name}" if changes else None
            config = planner.config({"recipe": base, **section}, teacher, label)
            title = titled(name if changes or base == "dllm2rec" else base, teacher)
            if not planner.served(title, config, teacher):
                continue
            added = set(parts_of(config)) - set(parts_of(whole)) - {"ids"}
            own = planner.study(title, config) if added else study
            planner.lines.append(
                Line(planner.student, title, "distilled", config, own, teacher=teacher.label, row=name)
            )


def _sweep_lines(planner: Planner, strategies: list[str]) -> None:
    """Add the whole method and the points of Figure 2: one value changed, everything else as it was tuned."""
    base = _base(strategies, planner.table)
    for teacher in planner.teachers:
        config = planner.config({"recipe": base, **section_of(base)}, teacher, None)
        title = titled(base, teacher)
        if not planner.served(title, config, teacher):
            continue
        study = planner.study(title, config)
        planner.lines.append(
            Line(planner.student, title, "distilled", config, study, teacher=teacher.label, row=base)
        )
        for key, (symbol, values) in SWEEP.items():
            for value in values:
                name = titled(f"{symbol} = {value:g}", teacher)
                planner.lines.append(
                    Line(
                        planner.student,
                        name,
                        "distilled",
                        config,
                        study,
                        {key: value},
                        teacher.label,
                        row=f"{key}={value:g}",
                    )
                )


#: Table → what adds its lines to a planner.
LINES: Final = {
    "table1": _plain_lines,
    "table2": _plain_lines,
    "table3": _plain_lines,
    "table4": _no_lines,
    "table5": _strategy_lines,
    "table6": _method_lines,
    "table7": _ablation_lines,
    "table8": _ablation_lines,
    "figure2": _sweep_lines,
    "best": _best_lines,
    "levers": _best_lines,
}
