from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from recdistill.errors import RunError
from recdistill.evaluate.tables import Table
from recdistill.experiments.document import Document, Picture
from recdistill.experiments.latex import escape
from recdistill.runs import write_manifest

PNG = b"\x89PNG\r\n\x1a\n"
NASTY = '50% & <b>w_o</b> {x} $1 #2 ~^\\ Δ ± ▲ λ_d "q"'


@pytest.fixture
def document() -> Document:
    table = Table(
        NASTY, ["model", "NDCG@20 ±"], [[NASTY, "0.1"], ["a|b", "0.2"]], ["teacher", "student"], NASTY
    )
    plain = Table("Counts", ["", "n"], [["users", "1"]], (), "")
    return Document(f"Table & {NASTY}", [NASTY], [table, plain], [Picture("p", NASTY, PNG)], {"n": 1})


def test_latex_is_balanced(document):
    text = document.to_latex()
    bare = re.sub(r"\\[{}%&$#_\\]", "", text)  # without escaped signs
    body = "\n".join(line for line in bare.splitlines() if not line.startswith("%"))
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    closed = re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(opened) == sorted(closed)
    assert opened.count("table") == 2
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {1}
    assert not re.findall(r"[^\x00-\x7f]", body.replace("▲", ""))


def test_latex_escapes_every_special_sign():
    assert escape("a_b%&$#{}") == r"a\_b\%\&\$\#\{\}"
    assert escape("\\") == r"\textbackslash{}"
    assert escape("0.1 ± 0.2 ▲ λ_d") == r"0.1 $\pm$ 0.2 $\blacktriangle$ $\lambda$\_d"


def test_html_is_well_formed_and_escaped(document):
    text = document.to_html()
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert root.find("./head/title").text == f"Table & {NASTY}"
    assert root.find(".//h1").text == f"Table & {NASTY}"
    assert [cell.text for cell in root.findall(".//td")][:2] == [NASTY, "0.1"]
    assert root.find(".//img").get("src").startswith("data:image/png;base64,iVBOR")
    assert not root.findall(".//b")
    assert "<script" not in text
    assert [row.get("class") for row in root.findall(".//tbody/tr")] == ["teacher", "student", None]


def test_markdown_and_terminal_show_everything(document):
    from rich.console import Console

    text = document.to_markdown()
    assert "a\\|b" in text
    assert "![" in text
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(document.to_rich())
    assert NASTY in console.export_text()


def test_a_report_replaces_a_report_and_nothing_else(document, tmp_path):
    document.save(tmp_path / "table5")
    document.save(tmp_path / "table5")
    names = {path.name for path in (tmp_path / "table5").iterdir()}
    assert names == {"report.md", "report.json", "report.tex", "report.html", "p.png", "manifest.json"}
    write_manifest(tmp_path, "dataset", {})
    with pytest.raises(RunError, match="is a 'dataset' folder"):
        document.save(tmp_path)
