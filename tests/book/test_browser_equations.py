"""Equations of the chapters in a real browser: they fit the column of nbconvert's page.

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
