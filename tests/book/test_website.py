"""The website: chapters as pages, generated pages, dead links, and the whole thing built by Sphinx."""

import base64
import copy
import io
import json
import re

import nbformat
import pytest
from PIL import Image

from vlmlab.book.lab import chapters_folder
from vlmlab.book.normalise import normalise
from vlmlab.book.website import pages
from vlmlab.book.website.build import build
from vlmlab.book.website.chapters import NEEDS, chapters, page
from vlmlab.book.website.links import faults
from vlmlab.errors import VlmlabError
from vlmlab.registry import registry
from vlmlab.views.style import STATES

BOOK = chapters(chapters_folder())


def cell(text: str) -> dict:
    return {"cell_type": "markdown", "source": text, "metadata": {}}


def test_the_map_knows_every_chapter_and_has_no_circle():
    numbers = [chapter.number for chapter in BOOK]
    assert numbers[0] == "00" and all(need in NEEDS for chapter in BOOK for need in chapter.needs)
    layer = pages._layers(BOOK)
    assert layer["00"] == 0 and layer["06_1"] == 2 and set(layer) == set(numbers)
    drawn = pages.drawing(BOOK)
    arrows = sum(need in numbers for chapter in BOOK for need in chapter.needs)
    assert drawn.count("<path") == arrows and drawn.count("<rect") == len(BOOK)
    # The ways round: nothing needs what stands to the right of it.
    assert all(layer[need] < layer[chapter.number] for chapter in BOOK for need in chapter.needs if need in layer)


def test_terms_are_linked_where_they_are_used_first_and_nowhere_else():
    texts = [
        "# Title\n\nwords",
        "## Shots\n\n`shots` and $shots$ and [shots](a.md). A few shots here, other shots there.\n\n| shots |\n|---|\n",
        "Deep prompts and prompts; a seed's shots.",
    ]
    notebook = {"cells": [cell(text) for text in texts]}
    before = copy.deepcopy(notebook)
    shown = page(notebook, "a.ipynb", ["shots", "deep prompt", "seed"])
    assert notebook == before, "what was given stays as it is"
    first, second, third = (one["source"] for one in shown["cells"])
    assert "vlmlab lab" in first and "a.ipynb" in first
    assert second.count("{term}") == 1 and "A few {term}`shots <shots>` here, other shots there." in second
    assert "{term}`Deep prompts <deep prompt>`" in third and "{term}`shots" not in third


def test_a_chapter_has_one_title_and_its_figures_their_texts():
    picture = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {"image/png": {"alt": "a chart"}}}
    code = {"cell_type": "code", "source": "# no heading", "metadata": {}, "outputs": [picture]}
    shown = page({"cells": [cell("# One"), cell("# Part 1\n\ntext"), code]}, "a.ipynb")["cells"]
    assert shown[1]["source"].startswith("## Part 1") and shown[2]["source"] == "# no heading"
    assert shown[2]["metadata"]["mystnb"]["image"]["alt"] == "a chart"


def test_states_of_a_panel_become_a_board_that_is_small_and_complete():
    noise = Image.effect_noise((400, 300), 50).convert("RGB")
    stream = io.BytesIO()
    noise.save(stream, "PNG")
    address = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    output = nbformat.v4.new_output(
        "display_data",
        {
            "text/plain": "a",
            STATES: {"name": "beta", "at": 1, "states": [["0", address, "none"], ["1", address, 'an "alt"']]},
        },
    )
    code = nbformat.v4.new_code_cell("panel", outputs=[output])
    made = normalise(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), code]))
    held = made.cells[1].outputs[0].data[STATES]["states"]
    assert len(held[0][1]) < 0.8 * len(address), "as small as the image of a cell is made"
    again = copy.deepcopy(made)
    assert normalise(again) == made, "twice changes nothing"
    shown = page(made, "a.ipynb")["cells"][1]["outputs"][0]["data"]
    assert set(shown) == {"text/html", "text/plain"} and shown["text/plain"] == 'an "alt"'
    states = re.search(r'data-states="([^"]*)"', shown["text/html"]).group(1).replace("&quot;", '"')
    assert [label for label, *_ in json.loads(states)] == ["0", "1"] and 'data-at="1"' in shown["text/html"]


def test_every_system_stands_in_the_index_and_on_a_sheet():
    made = pages.pages(BOOK)
    for info in registry().values():
        assert f"**{info.name}**" in made["systems.md"] and f"## {info.name}" in made[f"sheets/{info.family}.md"]
    words, equations = pages.idea(registry()["tip_adapter"])
    assert "cache" in words and equations.startswith("K = n(")
    assert pages.chapter_of("tip_adapter", BOOK).number == "06_4"


def test_dead_links_and_foreign_resources_are_named(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a.css").write_text("")
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "a.html").write_text(
        '<link href="_static/a.css"><script src="https://cdn.example/x.js"></script><img src="lost.png"><img src="data:,">'
        '<a href="b.html#there">good</a><a href="b.html#gone">bad</a><a href="c.html">bad</a><a href="https://arxiv.org">paper</a>'
    )
    assert list(faults(tmp_path)) == [
        "a.html loads https://cdn.example/x.js from elsewhere",
        "a.html lacks lost.png",
        "a.html links to b.html#gone: the page has no such place",
        "a.html links to c.html, which is not there",
    ]


def test_a_folder_that_is_no_site_is_not_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(VlmlabError, match="holds no website"):
        build(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_book_is_built_without_a_warning(tmp_path):
    """Sphinx warns of nothing, no link is dead, nothing comes from elsewhere: `build` raises otherwise.

    The reference takes minutes and is not built here.
    """
    found = build(tmp_path / "site", echo=lambda _: None)
    chapter = (tmp_path / "site" / "notebooks" / "06_4_feature_adapters.html").read_text(encoding="utf-8")
    assert found["pages"] > len(BOOK) + 10 and 'class="math' in chapter and "glossary.html#term-" in chapter
    assert not re.search(r'<img(?![^>]*alt="[^"]+")', chapter.partition("<main")[2].partition("</main")[0])
    assert 'class="vl-board"' in chapter and (tmp_path / "site" / "_static" / "slider.js").is_file()
