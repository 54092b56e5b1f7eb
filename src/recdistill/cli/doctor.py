"""``recdistill doctor``."""

from __future__ import annotations

from importlib.util import find_spec

#: Extra → the package that tells whether it is there.
_EXTRAS = (
    ("report", "matplotlib"),
    ("embed", "sentence_transformers"),
    ("llm", "transformers"),
    ("tune", "optuna"),
    ("export", "onnx"),
    ("serve", "fastapi"),
    ("hub", "huggingface_hub"),
    ("cluster", "ray"),
)


def doctor() -> None:
    """Show versions, extras and devices, and what is missing."""
    import os

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recdistill.train.distill import environment

    facts = environment()
    table = Table("what", "value", title="environment")
    for name in ("python", "platform", "threads"):
        table.add_row(name, str(facts[name]))
    for package, found in facts["packages"].items():
        table.add_row(package, found or "not installed")
    table.add_row("accelerator", facts["cuda"] or "none (CPU)")
    table.add_row(
        "RECDISTILL_DATA", os.environ.get("RECDISTILL_DATA", "not set (only tests and benchmarks read it)")
    )
    extras = Table("extra", "package", "state", title="optional parts")
    for extra, package in _EXTRAS:
        state = "installed" if find_spec(package) else f"missing: pip install 'recdistill[{extra}]'"
        extras.add_row(extra, package, escape(state))
    console = Console()
    console.print(table)
    console.print(extras)
