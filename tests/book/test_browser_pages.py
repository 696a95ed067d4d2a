"""Chapters as pages in a real browser: equations fit their column, figures have their texts.

nbconvert's page takes MathJax from the network; JupyterLab brings its own, with the same fonts and the same 14 pixels, so equations
are measured there.
"""

import re

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from tests.book.lab import LATER, opened, serving
from vlmlab.book.execute import chapters

COLUMN = 830
"""Pixels of the text's column in nbconvert's page beside the prompts, in a window of 1,000."""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def equations():
    """(chapter, equation) of every displayed equation of the book, and of its longest ones within a line."""
    for name, path in chapters().items():
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "markdown":
                shown = re.findall(r"\$\$(.+?)\$\$", cell.source, re.S)
                rest = re.sub(r"\$\$.+?\$\$|`[^`]*`", "", cell.source, flags=re.S)
                inline = [text for line in rest.splitlines() for text in line.split("$")[1::2] if len(text) > 60]
                yield from ((name, text) for text in (*shown, *inline))


@pytest.fixture(scope="module")
def server():
    with serving(
        [("equations.ipynb", [new_markdown_cell(f"$${text.strip()}$$") for _, text in equations()])]
    ) as address:
        yield address


def test_equations_fit_the_column(browser, server):
    every = list(equations())
    page = opened(browser, server, "equations.ipynb")
    page.wait_for_function(
        "count => document.querySelectorAll('.jp-RenderedMarkdown mjx-container').length >= count",
        arg=len(every),
        timeout=LATER,
    )
    widths = page.evaluate(
        """() => [...document.querySelectorAll('.jp-RenderedMarkdown')].map(cell =>
            [Math.max(...[...cell.querySelectorAll('mjx-math')].map(math => math.getBoundingClientRect().width)),
             cell.querySelectorAll('mjx-merror').length])"""
    )
    assert len(widths) == len(every) > 100
    wide = [
        (name, round(width), text) for (name, text), (width, _) in zip(every, widths, strict=True) if width > COLUMN
    ]
    assert not wide, wide
    assert [one for one, (_, wrong) in zip(every, widths, strict=True) if wrong] == []
    page.close()


@pytest.fixture(scope="module")
def converted(browser):
    """nbconvert's page of a chapter, in a browser that reaches nothing else."""
    from nbconvert import HTMLExporter

    text, _ = HTMLExporter().from_filename(str(chapters()["06_1_text_prompt_tuning"]))
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.route("**/*", lambda route: route.abort())
    page.set_content(text, wait_until="domcontentloaded")
    yield page
    page.close()


def test_every_figure_has_a_text_and_stays_in_the_column(converted):
    images = converted.locator(".jp-OutputArea-output img").evaluate_all(
        "images => images.map(image => [image.alt, image.getBoundingClientRect().width])"
    )
    assert len(images) >= 5
    assert [
        one for one in images if len(one[0]) <= 5 or one[0] == "No description has been provided for this image"
    ] == []
    assert max(width for _, width in images) <= COLUMN
    tables = converted.locator(".jp-OutputArea-output table").evaluate_all(
        "tables => tables.map(table => table.getBoundingClientRect().width)"
    )
    assert max(tables, default=0) <= COLUMN
