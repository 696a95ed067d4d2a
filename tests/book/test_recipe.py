"""The recipe itself: a chapter that follows it has no fault, and every way to break it is told."""

import base64
import copy
import io
import json

import pytest
from PIL import Image

from vlmlab.book.recipe import MOST_KB, faults, faults_of


def picture(alt="a bar chart with one bar per class", kind="image/png"):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    data = {kind: base64.b64encode(buffer.getvalue()).decode(), "text/plain": alt}
    return {"output_type": "display_data", "data": data, "metadata": {kind: {"alt": alt}}}


def said(text):
    return {"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": text}, "metadata": {}}


def markdown(text):
    return {"cell_type": "markdown", "id": "m", "metadata": {}, "source": text}


def code(text, *outputs, tags=()):
    return {
        "cell_type": "code", "id": "c", "metadata": {"tags": list(tags)}, "source": text, "outputs": list(outputs),
        "execution_count": None,
    }  # fmt: skip


SCRATCH = "\n".join([*(f"x{i} = {i}" for i in range(16)), "assert w.shape == (C, e)"])


def chapter():
    cells = [
        markdown("# A system\n\nSurvey section 6.3.1, 40 minutes"),
        markdown(
            "## Objectives\n\n1. build it (exercise 1)\n2. break it\n   (exercise 2)\n3. doubt it (exercises 2 and 3)\n"
        ),
        code("from vlmlab.book import check, facts, source\nchart", picture()),
        markdown("## The idea\n\nWords."),
        code(SCRATCH, tags=["scratch"]),
        code("assert same", tags=["parity"]),
        code('source("coop", "logits")', said("code")),
        markdown("## What breaks it, and what it costs\n"),
        markdown("## Exercises\n"),
        *(
            cell
            for n, key in enumerate(("06_4.vote", "06_4.nearest", "06_4.flattery"), 1)
            for cell in (
                markdown(f"### Exercise {n}: write it\n\n●●○○○, 10 minutes\n\nText."),
                code(f'check("{key}", ...)', said("Not started")),
            )
        ),
        markdown("## Published and measured\n"),
        markdown("## Summary\n\nFive lines."),
        code('# NBVAL_CHECK_OUTPUT\nfacts({"a": 1})', said("a: 1")),
        markdown("## References\n\n[CoOp](https://arxiv.org/abs/2109.01134)"),
    ]
    for n, cell in enumerate((c for c in cells if c["cell_type"] == "code"), 1):
        cell["execution_count"] = n
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_a_chapter_that_follows_the_recipe_has_no_fault():
    assert list(faults_of(chapter())) == []


def replaced(old, new):
    def change(book):
        found = [cell for cell in book["cells"] if old in cell["source"]]
        assert found, old
        for cell in found:
            cell["source"] = cell["source"].replace(old, new)

    return change


def outputs_of(text, *outputs):
    def change(book):
        next(cell for cell in book["cells"] if text in cell["source"])["outputs"] = list(outputs)

    return change


def tags_of(text, *tags):
    def change(book):
        next(cell for cell in book["cells"] if text in cell["source"])["metadata"]["tags"] = list(tags)

    return change


WIDGET = {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-view+json": {}}}
STDERR = {"output_type": "stream", "name": "stderr", "text": "UserWarning: old"}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
HTML_IMAGE = {"output_type": "display_data", "metadata": {}, "data": {"text/html": '<img src="data:..">'}}

BROKEN = {
    "no title": replaced("# A system", "A system"),
    "does not say the survey section": replaced("Survey section 6.3.1", "Section"),
    "does not say how many minutes the chapter": replaced("40 minutes", "a while"),
    "no section '## The idea'": replaced("## The idea", "## Theory"),
    "not in the order": replaced("## References", "## Objectives again\n## References"),
    "there are 1 objectives": replaced("2. break it\n   (exercise 2)\n3. doubt it (exercises 2 and 3)\n", ""),
    "objective 2 names no exercise": replaced("(exercise 2)", ""),
    "exercise 4, which does not exist": replaced("(exercise 1)", "(exercise 4)"),
    "no cell is tagged 'scratch'": tags_of("x0 = 0"),
    "the scratch cell has 2 lines": replaced(SCRATCH, "x = 1\nx.shape"),
    "a line of 113 columns; code has at most 100": replaced("assert same", f"assert same  # {'x' * 98}"),
    "checks no shape": replaced("w.shape == (C, e)", "True\n# longer"),
    "no cell tagged 'parity'": replaced("assert same", "print(same)"),
    "not shown live": replaced('source("coop", "logits")', "print(1)"),
    "there are 2 exercises": replaced("### Exercise 3: write it", "Exercise 3"),
    "has number 5; it is the 2. one": replaced("Exercise 2:", "Exercise 5:"),
    "how difficult": replaced("●●○○○, 10 minutes\n\nText.", "10 minutes"),
    "how many minutes it takes": replaced("●●○○○, 10 minutes", "●●○○○"),
    "3 exercises have 2 checks": replaced('check("06_4.vote", ...)', "..."),
    "not among the exercises": replaced("06_4.vote", "06_4.vot"),
    "0 cells are marked": replaced("# NBVAL_CHECK_OUTPUT\n", ""),
    "the facts cell has no output": outputs_of("NBVAL"),
    "link no paper": replaced("https://arxiv.org/abs/2109.01134", "coop.pdf"),
    "has no description (alt text); use .described": outputs_of("import check", picture(alt="figure")),
    "an <img> of cell 3": outputs_of("import check", HTML_IMAGE),
    "an image of cell 4": replaced("Words.", "![x](y.png)"),
    "there is no figure": outputs_of("import check"),
    "uses the colour #FF0000": replaced("assert same", 'assert same\naxes.plot(x, color="#FF0000")'),
    "the colour map jet": replaced("assert same", 'assert same\naxes.imshow(x, cmap="jet")'),
    "stores the view of a widget": outputs_of("import check", WIDGET, picture()),
    "ended in an error": outputs_of("import check", ERROR, picture()),
    "prints to standard error": outputs_of("import check", STDERR, picture()),
    "not executed from top to bottom": lambda book: book["cells"][2].update(execution_count=7),
    "carries widget state": lambda book: book["metadata"].update(widgets={}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_each_way_to_break_the_recipe_is_told(message):
    broken = copy.deepcopy(chapter())
    BROKEN[message](broken)
    assert any(message in fault for fault in faults_of(broken)), list(faults_of(broken))


def test_a_large_notebook_is_told(tmp_path):
    path = tmp_path / "large.ipynb"
    book = chapter()
    path.write_text(json.dumps(book), encoding="utf-8")
    assert faults(path) == []
    book["cells"][3]["source"] += "x" * 1024 * MOST_KB
    path.write_text(json.dumps(book), encoding="utf-8")
    assert any("kB" in fault for fault in faults(path))
