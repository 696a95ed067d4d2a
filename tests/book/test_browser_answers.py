"""What panels say and how soon, in a real browser: runs and their sentences, what is forgotten with a choice, times of an answer.

What an action costs is measured in processor seconds of the kernel, which other work on the machine does not change; ten times what
is promised is allowed, and VLMLAB_SLACK=1 holds to it.
"""

import os

import pytest
from nbformat.v4 import new_code_cell

from tests.book.lab import (
    LATER,
    LONG,
    PANELS,
    PROBE,
    SECTION_7,
    SECTION_7_BEGINS,
    fit_a_small_screen,
    fitted,
    narrow,
    no_error_of_ours,
    revision,
    serving,
    settled,
    shown,
    typed,
    used,
)  # fmt: skip

SLACK = float(os.environ.get("VLMLAB_SLACK", "10"))
LIVE = ("MethodLab(", "SegmentationPlayground(", "EquationLens(", "ProtocolBox(", "ContextMicroscope(")
TYPED = ("DetectionPlayground", "MaskQueries")
PAGES = ((853, 533), (900, 700))
"""The window of 1280 x 800 at 150 %, and a small tablet, in pixels of CSS."""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def server():
    cells = [source for source in PANELS if any(name in source for name in LIVE)]
    cells += ["from vlmlab.widgets import SectionBoard\nSectionBoard()", SECTION_7_BEGINS]
    cells += [f"from vlmlab.widgets import {name}\n{SECTION_7[name]}" for name in TYPED]
    with serving([("answers.ipynb", [new_code_cell(source) for source in (*cells, PROBE)])]) as address:
        yield address


@pytest.fixture(scope="module")
def panels(browser, server):
    page = shown(
        browser,
        server,
        "answers.ipynb",
        ("EquationLens", "ContextMicroscope", "SegmentationPlayground", "SectionBoard", *TYPED),
    )
    yield page
    page.close()


def test_panels_fit_every_page(panels):
    fit_a_small_screen(panels)
    for width, height in PAGES:
        narrow(panels, width, height)
    panels.set_viewport_size({"width": 1280, "height": 800})


def test_a_missing_bar_is_explained_and_a_run_says_what_it_was(panels):
    """Tip-Adapter's cache votes for the classes that it holds, so there is a bar for base classes and a sentence for new ones."""
    lab = panels.locator(".vlmlab-MethodLab")
    lab.locator(".vlmlab-system select").select_option(label="Tip-Adapter")
    lab.locator(".vlmlab-split button", has_text="base to new").click()
    lab.locator(".lm-Widget.jp-Collapse-header, .jupyter-widget-Collapse-header").first.click()
    alpha = lab.locator(".widget-inline-hbox", has_text="alpha").locator("input").first
    alpha.fill("3")
    alpha.press("Tab")
    fitted(panels, "Tip-Adapter")
    panels.wait_for_function("() => /no bar/.test(document.querySelector('.vlmlab-MethodLab .vlmlab-shown').innerText)")
    last = lab.locator(".vlmlab-shown p").first.inner_text()
    assert "Tip-Adapter" in last and "digits, micro-vit" in last and "alpha=3.0" in last, last
    bars = lab.locator(".vlmlab-shown .vlmlab-bars").first
    assert bars.locator(".bar").count() == 1 and "base classes" in bars.inner_text()
    assert "new classes" in bars.inner_text() and "cannot vote for other classes" in bars.inner_text()
    assert not lab.locator(".vlmlab-shown img").first.is_visible(), "what learns nothing has no curve of a loss"
    alpha.fill("1.17")
    alpha.press("Tab")
    lab.locator(".vlmlab-split button", has_text="all classes").click()


def test_a_stopped_run_says_so(panels):
    lab = panels.locator(".vlmlab-MethodLab")
    lab.locator(".vlmlab-system select").select_option(label="CoOp")
    before = revision(panels, "MethodLab")
    lab.locator(".vlmlab-fit").click()
    settled(panels, "MethodLab", before)  # the curve has begun
    lab.locator(".vlmlab-stop").click()
    panels.wait_for_function("() => document.querySelector('.vlmlab-MethodLab .vlmlab-stop').disabled", timeout=LATER)
    panels.wait_for_function(
        "() => /stopped after \\d+ of \\d+ steps/.test(document.querySelector('.vlmlab-MethodLab .vlmlab-shown p').innerText)"
    )


def test_the_protocol_box_measures_the_system_that_is_chosen_and_forgets_it_with_the_dataset(panels):
    box = panels.locator(".vlmlab-ProtocolBox")
    chart = box.locator(".vlmlab-shown .vlmlab-click img")
    assert chart.get_attribute("src") is None
    for label in ("Tip-Adapter", "Linear probe"):
        before = revision(panels, "ProtocolBox")
        box.locator(".vlmlab-system select").select_option(label=label)
        if label != "Tip-Adapter":  # which was chosen already
            settled(panels, "ProtocolBox", before)
            assert chart.get_attribute("src") is None, "what was measured was another system's"
        before = revision(panels, "ProtocolBox")
        box.locator(".vlmlab-flatter").click()
        settled(panels, "ProtocolBox", before, LONG)
        assert chart.is_visible() and f"accuracy of {label} when" in chart.get_attribute("alt")
    before = revision(panels, "ProtocolBox")
    box.locator(".vlmlab-dataset select").select_option("textures")
    settled(panels, "ProtocolBox", before)
    assert chart.get_attribute("src") is None and not chart.is_visible()


def test_the_lens_opens_a_new_system_in_time(panels):
    for label in ("TaskRes", "CoOp", "CoCoOp"):

        def chosen(label=label):
            before = revision(panels, "EquationLens")
            panels.locator(".vlmlab-EquationLens .vlmlab-system select").select_option(label=label)
            settled(panels, "EquationLens", before)

        took = used(panels, chosen)
        print(f"EquationLens, {label}: {1000 * took:.0f} ms of the processor")
        assert took < 2 * SLACK, label
        assert panels.locator(".vlmlab-EquationLens .vlmlab-told").count() == 0
        assert "def logits" in panels.locator(".vlmlab-EquationLens pre").inner_text()


WORDS = ("sky, umbrella", "zebra, grass, apple", "horse, water, lamp")


@pytest.mark.parametrize("name", ["SegmentationPlayground", *TYPED])
def test_typed_words_are_answered_in_time(panels, name):
    def asked():
        for words in WORDS:
            before = revision(panels, name)
            typed(panels, f".vlmlab-{name} .vlmlab-words textarea", words)
            settled(panels, name, before)

    took = used(panels, asked) / len(WORDS)
    print(f"{name}: {1000 * took:.0f} ms of the processor")
    assert took < 0.2 * SLACK


def test_the_board_repaints_in_time(panels):
    def moved():
        for key in ("ArrowLeft", "ArrowRight") * 2:
            before = revision(panels, "SectionBoard")
            panels.locator(".vlmlab-SectionBoard .vlmlab-shots .noUi-handle").press(key)
            settled(panels, "SectionBoard", before)

    took = used(panels, moved) / 4
    print(f"SectionBoard: {1000 * took:.0f} ms of the processor")
    assert took < 0.2 * SLACK


def test_learned_vectors_have_neighbours_of_their_own(panels):
    """Not the same few words near every vector, and beside them those of random vectors."""
    rows = panels.locator(".vlmlab-ContextMicroscope table tr").all()[1:]
    lists = [[cell.inner_text() for cell in row.locator("td").all()[1:3]] for row in rows]
    words = [entry.rsplit(" ", 1)[0] for own, random in lists for text in (own, random) for entry in text.split(", ")]
    assert len(rows) == 4 and len(words) == 24 and len(set(words)) >= 20, lists


def test_no_panel_shows_an_error_of_ours(panels):
    no_error_of_ours(panels)
