"""A browser and a server of the book for the files of browser tests: one of each per file, and one kernel per notebook of panels.

Skipped, with the reason, where there is no Chromium (VLMLAB_CHROMIUM names one) or no Playwright.
"""

import pytest

from tests.book.lab import FLAGS, chromium, serving


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium; install one, or name it in VLMLAB_CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server():
    """The address of a JupyterLab over a throw-away copy of the book."""
    with serving() as address:
        yield address
