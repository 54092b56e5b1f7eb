"""A report of one table of the paper: texts, tables and pictures, and the files it becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.evaluate.tables import Table, markdown_table, rich_table
from recdistill.runs import MANIFEST, atomic_folder, read_manifest, write_manifest

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Document", "Picture"]


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes
    ----------
    name
        File name without suffix.
    title
        Says what is seen, also to those who do not see it.
    png
        The file's bytes.
    """

    name: str
    title: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Document:
    """A report of one table or figure of the paper.

    Attributes
    ----------
    title
        Heading.
    notes
        What to know before reading: left out, failed, how it was tuned.
    tables
        In order.
    pictures
        In order; none without matplotlib.
    facts
        Everything as numbers, for ``report.json``.
    """

    title: str
    notes: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    facts: Mapping[str, Any]

    def to_rich(self) -> Group:
        """Return the report for a terminal."""
        from rich.console import Group
        from rich.text import Text

        notes = [Text(f"• {note}", style="dim") for note in self.notes]
        return Group(Text(f"{self.title}\n", style="bold"), *map(rich_table, self.tables), *notes)

    def to_markdown(self) -> str:
        """Return the report as Markdown; pictures are files beside it."""
        parts = [f"# {self.title}\n"]
        parts += [f"![{picture.title}]({picture.name}.png)\n" for picture in self.pictures]
        parts += [markdown_table(table) for table in self.tables]
        parts += ["## Notes\n", "".join(f"- {note}\n" for note in self.notes)] if self.notes else []
        return "\n".join(parts)

    def to_latex(self) -> str:
        """Return the tables as LaTeX with booktabs, to be read with ``\\input``."""
        from recdistill.experiments.latex import latex

        return latex(self)

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no other file."""
        from recdistill.experiments.html import html

        return html(self)

    def to_json(self) -> str:
        """Return the numbers behind the report as JSON."""
        content = {"title": self.title, "notes": list(self.notes), **self.facts}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``report.md``, ``.json``, ``.tex``, ``.html`` and the pictures, or nothing.

        Raises
        ------
        RunError
            The folder holds something else than a report.
        """
        if (folder / MANIFEST).is_file():
            read_manifest(folder, "reproduction")
        with atomic_folder(folder, overwrite=True) as out:
            for picture in self.pictures:
                (out / f"{picture.name}.png").write_bytes(picture.png)
            (out / "report.md").write_text(self.to_markdown(), encoding="utf-8")
            (out / "report.json").write_text(self.to_json(), encoding="utf-8")
            (out / "report.tex").write_text(self.to_latex(), encoding="utf-8")
            (out / "report.html").write_text(self.to_html(), encoding="utf-8")
            write_manifest(out, "reproduction", {"title": self.title})
