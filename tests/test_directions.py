"""Arrows point one way: no part of the package imports one that stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vlmlab"

ABOVE_NOTHING = ("errors", "files", "registry", "heap", "watch", "randomness", "clock")
BELOW = {
    "errors": (),
    "files": ("errors",),
    "heap": (),
    "watch": (),
    "randomness": ("errors",),
    "clock": (),
    "registry": ("errors",),
    "geometry": ("datasets",),  # whose ground truth it moves
    "world": ABOVE_NOTHING,
    "backbones": ABOVE_NOTHING,
    "datasets": (*ABOVE_NOTHING, "world"),
    "features": (*ABOVE_NOTHING, "backbones", "datasets"),
    "pretraining": (*ABOVE_NOTHING, "world", "backbones", "datasets"),
    "methods": (*ABOVE_NOTHING, "geometry", "backbones", "datasets", "features"),
    "learning": (*ABOVE_NOTHING, "geometry", "datasets", "features", "methods"),
    "testing": (*ABOVE_NOTHING, "geometry", "backbones", "datasets", "features", "methods", "learning"),
    "studies": (*ABOVE_NOTHING, "geometry", "world", "backbones", "datasets", "features", "methods", "learning"),
    "views": (
        *ABOVE_NOTHING,
        "geometry",
        "world",
        "backbones",
        "datasets",
        "features",
        "methods",
        "learning",
        "studies",
    ),
    "widgets": (
        *ABOVE_NOTHING,
        "geometry",
        "world",
        "backbones",
        "datasets",
        "features",
        "methods",
        "learning",
        "studies",
        "views",
    ),
    "book": (
        *ABOVE_NOTHING,
        "geometry",
        "world",
        "backbones",
        "datasets",
        "features",
        "methods",
        "learning",
        "studies",
        "views",
        "widgets",
    ),
    "cli": (*ABOVE_NOTHING, "backbones", "datasets", "features", "pretraining", "testing", "studies", "book"),
}
"""Part -> what it may import. World, datasets, backbones; methods; learning; studies; views; widgets; the book."""


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part of vlmlab) of every import of a file, those inside of functions too; type annotations do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name.split(".")[1]) for name in names if name.startswith("vlmlab."))


def parts() -> set[str]:
    return {p.stem for p in PACKAGE.iterdir() if p.name[0] not in "_." and (p.is_dir() or p.suffix == ".py")}


def test_every_part_has_its_place():
    assert parts() == set(BELOW)


@pytest.mark.parametrize("part", list(BELOW))
def test_a_part_imports_what_stands_below_it(part):
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").is_file() else sorted((PACKAGE / part).rglob("*.py"))
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in files
        for line, name in imported(path)
        if name in BELOW and name not in (part, *BELOW[part])
    ]
    assert files and not wrong, wrong
