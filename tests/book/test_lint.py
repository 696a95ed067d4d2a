"""Every chapter of the book holds to the recipe, and its images can be told apart by colour-blind readers."""

import ast
import itertools
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vlmlab.book.execute import chapters
from vlmlab.book.exercise import exercises
from vlmlab.book.recipe import faults
from vlmlab.views.style import SYSTEMS

CHAPTERS = chapters()


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_chapter_holds_to_the_recipe(name):
    assert faults(CHAPTERS[name]) == []


def test_every_exercise_is_in_a_chapter():
    text = "".join(path.read_text(encoding="utf-8") for path in CHAPTERS.values())
    assert [key for key in exercises() if f'check(\\"{key}\\"' not in text] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_chapter_is_stored_in_its_committed_form(name):
    import nbformat

    from vlmlab.book.normalise import normalise

    path = CHAPTERS[name]
    notebook = normalise(nbformat.read(path, as_version=4))
    assert nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8"), "write it with vlmlab book"
    ids = [cell["id"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", CHAPTERS)
def test_what_the_chapter_imports_is_there(name):
    """Told here, before a kernel is started for it: a name that has moved since the chapter was executed."""
    cells = json.loads(CHAPTERS[name].read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    found = {ast.unparse(n) for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)}
    for statement in sorted(found):
        exec(statement, {})


PLOTS_ONLY = {"06_6_discussion"}
"""Chapters that show the measured table: nothing in them could be set."""
SET = [name for name in CHAPTERS if name[:3] in ("06_", "08_", "09_") and name not in PLOTS_ONLY]


@pytest.mark.parametrize("name", SET)
def test_a_chapter_takes_parameters(name):
    """One tagged cell of literals before everything else, so that papermill can put others behind it."""
    cells = [c for c in json.loads(CHAPTERS[name].read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    tagged = [k for k, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ())]
    assert tagged == [0]
    tree = ast.parse("".join(cells[0]["source"]))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert "SEEDS" in names or name[:3] != "06_"
    for statement in tree.body:
        ast.literal_eval(statement.value)
    later = "\n".join("".join(cell["source"]) for cell in cells[1:])
    assert [one for one in sorted(names) if not re.search(rf"\b{one}\b", later)] == [], "a parameter that nothing reads"


# What dichromats see of linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def lab(rgb):
    """CIE Lab of sRGB in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 1e-9))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour, matrix):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    shifted = np.clip(matrix @ linear, 0, 1)
    return lab(np.where(shifted <= 0.0031308, 12.92 * shifted, 1.055 * shifted ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("sight", SIGHT)
def test_the_colours_of_systems_stay_apart(sight):
    """The first five, which a chart rarely exceeds; a difference of 2.3 in Lab is just noticeable."""
    apart = {
        (a, b): np.linalg.norm(seen(a, SIGHT[sight]) - seen(b, SIGHT[sight]))
        for a, b in itertools.combinations(SYSTEMS[:5], 2)
    }
    assert min(apart.values()) > 10, min(apart, key=apart.get)
