"""A report's tables as LaTeX with booktabs."""

from __future__ import annotations

from typing import Final

from recdistill.evaluate.tables import Table
from recdistill.experiments.document import Document

__all__ = ["escape", "latex"]

_SIGNS: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "•": r"$\bullet$",
    "…": r"\ldots{}",
}


def escape(text: str) -> str:
    """Return a text as LaTeX shows it; every special sign of LaTeX and the signs of our tables are replaced."""
    return "".join(_SIGNS.get(sign, sign) for sign in text.replace("\n", " "))


def latex(document: Document) -> str:
    """Return all tables, one ``table`` environment each, as a file for ``\\input``."""
    head = [
        f"% {' '.join(document.title.split())}",
        r"% needs \usepackage{booktabs,amssymb,graphicx} and, with pdflatex, \usepackage[utf8]{inputenc}",
        "",
    ]
    return "\n".join([*head, *map(_table, document.tables)])


def _table(table: Table) -> str:
    def line(cells: list[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    body = [line([escape(cell) for cell in cells]) for cells in table.lines]
    columns = "l" + "r" * (len(table.columns) - 1)
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"  \centering",
            rf"  \caption{{{escape(table.title)}. {escape(table.caption)}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            line([escape(column) for column in table.columns]),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
    )
