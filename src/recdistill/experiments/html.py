"""A report as one HTML page: no script, no other file, pictures within."""

from __future__ import annotations

import base64
from html import escape
from typing import Final

from recdistill.evaluate.tables import Table
from recdistill.experiments.document import Document, Picture

__all__ = ["html"]

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #22262b; } tbody tr:last-child td { border-bottom: 1px solid #22262b; }
tr.teacher td { color: #0072b2; } tr.student td { color: #8a5d00; } tr.distilled td:first-child { font-weight: 600; }
h1, h2, p, li { overflow-wrap: anywhere; }
p.caption, li { color: #6b7280; font-size: .85rem; max-width: 60rem; }
img { max-width: 100%; height: auto; }
@media (max-width: 40rem) { body { margin: 1rem auto; } h1 { font-size: 1.25rem; } th, td { padding: .25rem .5rem; } }
"""


def html(document: Document) -> str:
    """Return the page; every text in it is escaped, every element closed."""
    title = escape(document.title)
    notes = "".join(f"<li>{escape(note)}</li>\n" for note in document.notes)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        f'<head><meta charset="utf-8"/><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<style>{escape(_STYLE, quote=False)}</style></head>",
        f"<body><h1>{title}</h1>",
        *map(_picture, document.pictures),
        *map(_table, document.tables),
        f"<h2>Notes</h2>\n<ul>\n{notes}</ul>" if notes else "",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    return f'<p><img alt="{escape(picture.title)}" src="data:image/png;base64,{data}"/></p>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    kinds = [f' class="{escape(kind)}"' for kind in table.kinds] or [""] * len(table.lines)
    body = "\n".join(
        f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells, kind in zip(table.lines, kinds, strict=True)
    )
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{body}\n</tbody></table></div>\n<p class="caption">{escape(table.caption)}</p>'
    )
