"""Imports go down only (ARCHITECTURE: layers)."""

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "recdistill"
LAYERS = [
    {"cli"},
    {"experiments"},
    {"config"},
    {"train", "serve"},
    {"teachers", "recipes", "export"},
    {"strategies", "item_encoders", "user_encoders", "students", "losses", "evaluate", "knowledge"},
    {"data"},
    {"types", "products", "errors", "runs", "titles", "columns", "cluster", "environment", "extras"},
]
LEVEL = {name: len(LAYERS) - number for number, names in enumerate(LAYERS) for name in names}
FORBIDDEN = {
    "teachers": {"students", "strategies", "train"},
    "strategies": {"teachers"},
    "students": {"knowledge"},
}


def imports() -> list[tuple[str, str, Path]]:
    found = []
    for path in SRC.rglob("*.py"):
        part = path.relative_to(SRC).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found += [(part, name.split(".")[1], path) for name in names if name.startswith("recdistill.")]
    return found


def test_every_part_has_a_layer() -> None:
    parts = {p.stem if p.suffix == ".py" else p.name for p in SRC.iterdir()} - {
        "__init__",
        "__main__",
        "py",
        "__pycache__",
    }
    assert {part for part in parts if not part.endswith(".typed")} - {"py.typed"} == set(LEVEL)


def test_imports_go_down_only() -> None:
    wrong = [
        f"{path.relative_to(SRC)}: {part} imports {target}"
        for part, target, path in imports()
        if part in LEVEL and LEVEL[target] > LEVEL[part]
    ]
    assert not wrong


def test_forbidden_pairs() -> None:
    wrong = [
        f"{path.name}: {part} imports {target}"
        for part, target, path in imports()
        if target in FORBIDDEN.get(part, ())
    ]
    assert not wrong
