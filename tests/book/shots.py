"""Screenshots of every panel for eyes: at 1280 x 800, light and dark, in a page of 900 pixels, and at 150 %: `make shots`.

`python -m tests.book.shots OUT section7.ipynb` shoots the panels of some notebooks only.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.book.lab import (
    FLAGS,
    LONG,
    SECTION_6,
    SECTION_7,
    SECTIONS_8_9,
    SHOWING,
    chromium,
    has_images,
    opened,
    run_all,
    serving,
)  # fmt: skip

NOTEBOOKS = {
    "panels.ipynb": SHOWING,
    "section6.ipynb": SECTION_6,
    "section7.ipynb": SECTION_7,
    "section89.ipynb": SECTIONS_8_9,
}
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


def shoot(out: Path, notebooks: Sequence[str] = ()) -> list[Path]:
    """Write a PNG per panel and kind of page into `out`, of all notebooks if none is named; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with sync_playwright() as running, serving() as address:
        browser = running.chromium.launch(executable_path=chromium(), args=FLAGS)
        for notebook, names in NOTEBOOKS.items():
            if notebooks and notebook not in notebooks:
                continue
            page = opened(browser, address, notebook)
            run_all(page)
            has_images(page, names)
            page.wait_for_function("() => !document.querySelector('.vlmlab-busy span')", timeout=LONG)
            written += of_page(page, out)
            page.close()
        browser.close()
    return written


def of_page(page, out: Path) -> list[Path]:
    """Every panel of a page that has answered: light, dark, 900 pixels wide, and at 150 %; the page ends as wide and as light as it
    was."""
    written = []
    for theme, name in THEMES.items():
        page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=str(theme == "light").lower()
        )
        page.wait_for_timeout(500)  # the new colours fade in
        written += _panels(page, out, theme)
    page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", THEMES["light"])
    page.set_viewport_size({"width": 900, "height": 800})
    page.wait_for_timeout(2000)  # panels are drawn again for the width that they have now
    written += _panels(page, out, "900")
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 853, "height": 533})  # what 1280 x 800 have at 150 %
    page.wait_for_timeout(2000)
    written += _panels(page, out, "150")
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 1280, "height": 800})
    return written


def _panels(page, out: Path, suffix: str) -> list[Path]:
    written = []
    for panel in page.locator(".vlmlab-panel").all():
        kind = panel.get_attribute("class").split("vlmlab-")[-1].split()[0]
        panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
        page.screenshot(path=out / f"{kind}-{suffix}.png")
        written.append(out / f"{kind}-{suffix}.png")
    return written


if __name__ == "__main__":
    for path in shoot(Path(sys.argv[1] if len(sys.argv) > 1 else "reports/shots"), sys.argv[2:]):
        print(path)
