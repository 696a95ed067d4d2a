"""The panels of the chapters on sections 8 and 9 in a real browser: each answers to its first control, and fits every page."""

import pytest

from tests.book.lab import (
    LONG,
    SECTIONS_8_9,
    fit_a_small_screen,
    narrow,
    no_error_of_ours,
    revision,
    settled,
    shown,
)  # fmt: skip

PAGES = ((853, 533), (900, 700))
"""The window of 1280 x 800 at 150 %, and a small tablet, in pixels of CSS."""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(browser, server):
    page = shown(browser, server, "section89.ipynb", SECTIONS_8_9)
    yield page
    page.close()


@pytest.mark.parametrize("name", SECTIONS_8_9)
def test_a_panel_answers_to_its_first_control(page, name):
    control = page.locator(f".vlmlab-{name} .noUi-handle, .vlmlab-{name} .widget-dropdown select").first
    before = revision(page, name)
    if control.evaluate("element => element.tagName") == "SELECT":
        control.select_option(index=control.evaluate("menu => (menu.selectedIndex + 1) % menu.length"))
    else:
        last = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.press("ArrowLeft" if last else "ArrowRight")
    settled(page, name, before, LONG)  # another dataset may have to be encoded
    assert page.locator(f".vlmlab-{name} .vlmlab-told").count() == 0


def test_panels_fit_every_page_and_show_no_error_of_ours(page):
    fit_a_small_screen(page)
    for width, height in PAGES:
        narrow(page, width, height)
    no_error_of_ours(page)
