"""``recdistill doctor``."""

from __future__ import annotations

from importlib.util import find_spec


def doctor() -> None:
    """Show versions, extras and devices, and what is missing."""
    import os

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recdistill.environment import environment
    from recdistill.extras import EXTRA_OF

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
    first = {extra: package for package, extra in reversed(EXTRA_OF.items())}
    for extra, package in sorted(first.items()):
        state = "installed" if find_spec(package) else f"missing: pip install 'recdistill[{extra}]'"
        extras.add_row(extra, package, escape(state))
    console = Console()
    console.print(table)
    console.print(extras)
