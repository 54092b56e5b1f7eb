"""Every package says what is public, and every public name exists and is documented (ruff sorts them)."""

import importlib
import inspect
from pathlib import Path

import pytest

import recdistill

SRC = Path(recdistill.__file__).parent
PACKAGES = sorted(
    ".".join(("recdistill", *path.parent.relative_to(SRC).parts))
    for path in SRC.rglob("__init__.py")
    if "cli" not in path.parts
)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"


def test_unknown_name_of_the_package() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Teacherr'"):
        recdistill.Teacherr  # noqa: B018
