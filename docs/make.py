"""Write the pages that are made from the code: docs/api.md and docs/cli.md. ``make docs`` runs it."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGES = [
    "recdistill",
    "recdistill.data",
    "recdistill.knowledge",
    "recdistill.teachers",
    "recdistill.students",
    "recdistill.losses",
    "recdistill.item_encoders",
    "recdistill.user_encoders",
    "recdistill.strategies",
    "recdistill.recipes",
    "recdistill.train",
    "recdistill.train.mutual",
    "recdistill.evaluate",
    "recdistill.export",
    "recdistill.serve",
    "recdistill.experiments",
    "recdistill.config",
]


def api_page() -> str:
    """Return the list of public names with the first line of each docstring."""
    lines = ["# Public names", "", "Made by `make docs` from the code.", ""]
    for package in PACKAGES:
        module = importlib.import_module(package)
        lines += [
            f"## `{package}`",
            "",
            (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " "),
            "",
        ]
        lines += ["| name | what it is |", "|---|---|"]
        for name in module.__all__:
            value = getattr(module, name)
            documented = inspect.isclass(value) or inspect.isfunction(value)
            text = (inspect.getdoc(value) or "") if documented else "value"
            lines.append(
                f"| `{name}` | {text.split(chr(10) + chr(10))[0].replace(chr(10), ' ').replace('|', chr(92) + '|')} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def cli_page() -> str:
    """Return the help of every verb."""
    import typer.main

    from recdistill.cli.main import app

    root = typer.main.get_command(app)
    lines = ["# Command line", "", "Made by `make docs` from the code.", ""]
    for path, command in _commands("recdistill", root):
        with command.make_context(path, [], resilient_parsing=True) as context:
            context.terminal_width = context.max_content_width = 100
            lines += [f"## `{path}`", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(path, command):  # type: ignore[no-untyped-def]
    yield path, command
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(f"{path} {name}", child)


PAGES = {"api.md": api_page, "cli.md": cli_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    main()
