"""Results as JSON files and Markdown tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine

RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=(description or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of the wall times")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    made.add_argument("--seed", type=int, default=0)
    return made


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; floats get three significant digits, None becomes a dash."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def save(name: str, threads: int, out: Path, content: Mapping[str, Any], markdown: str) -> None:
    """Write ``out/name.json`` with the machine's facts and print the Markdown."""
    facts = machine.facts(threads)
    text = f"### {name}\n\n{markdown}\n\n_{machine.sentence(facts)}_\n"
    out.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": name, "machine": facts, **content, "markdown": text}
    (out / f"{name}.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ratio(theirs: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, float]:
    """Return how many times faster ours is, in CPU time of one thread and in the smallest wall time."""
    return {
        "cpu_1_thread": theirs["cpu_1_thread_ms"] / ours["cpu_1_thread_ms"],
        "wall": theirs["wall_min_ms"] / ours["wall_min_ms"],
    }
