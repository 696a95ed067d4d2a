"""Arrows point one way: no part of the package imports one that stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vlmlab"

ABOVE_NOTHING = ("errors", "files", "registry", "heap", "lists", "watch", "randomness", "clock", "devices")
BELOW = {
    "errors": (),
    "files": ("errors",),
    "heap": (),
    "devices": (),
    "lists": (),
    "watch": (),
    "randomness": ("errors",),
    "clock": (),
    "registry": ("errors",),
    "geometry": ("datasets",),  # whose ground truth it moves
    "world": ABOVE_NOTHING,
    "backbones": ABOVE_NOTHING,
    "datasets": (*ABOVE_NOTHING, "world"),
    "features": (*ABOVE_NOTHING, "backbones", "datasets"),
    "pretraining": (*ABOVE_NOTHING, "world", "backbones", "datasets", "methods"),
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
    "cli": (
        *ABOVE_NOTHING,
        "backbones",
        "datasets",
        "features",
        "pretraining",
        "learning",
        "testing",
        "studies",
        "book",
    ),
}
"""Part -> what it may import. World, datasets, backbones; methods; learning; studies; views; widgets; the book."""


def every_import(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module or name in it) of every import of vlmlab in a file, those inside of functions too; type annotations do not
    count."""
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
        yield from ((node.lineno, name) for name in names if name.startswith("vlmlab."))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part of vlmlab) of every import of a file."""
    yield from ((line, name.split(".")[1]) for line, name in every_import(path))


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


def circles_of(package: Path) -> list[set[str]]:
    """Groups of files of the package each of which can be reached from every other along imports, those in functions too."""
    modules = {
        ".".join(["vlmlab", *path.relative_to(package).with_suffix("").parts]): path for path in package.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    arrows = {name: {target for target in targets(path, modules) if target != name} for name, path in modules.items()}
    reached = {name: set(arrows[name]) for name in arrows}
    for middle in arrows:  # Warshall
        for name in arrows:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    circles = {frozenset(other for other in reached[name] if name in reached[other]) for name in arrows}
    return [set(circle) for circle in circles if circle]


def targets(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a file imports."""
    for _, name in every_import(path):
        yield name if name in modules else name.rpartition(".")[0]


def test_no_file_imports_itself_in_a_circle():
    assert not circles_of(PACKAGE)


def test_a_circle_is_found(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")):
        (tmp_path / f"{name}.py").write_text(f"def f():\n    from vlmlab.{other} import f\n")
    assert circles_of(tmp_path) == [{"vlmlab.a", "vlmlab.b", "vlmlab.c"}]
