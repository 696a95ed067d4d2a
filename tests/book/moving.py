"""The moving picture of the README: words are typed into a live panel of JupyterLab. `python -m tests.book.moving` makes it."""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.book.lab import FLAGS, LATER, chromium, has_images, opened, run_all, serving

PANEL = ".vlmlab-SegmentationPlayground"
LISTS = (
    "mushroom, sky",
    "mushroom, book",
    "mushroom, book, sand",
    "umbrella, newspaper, sand",
    "book, sand, water, grass",
)
WIDE, SECONDS, COLOURS, MOST_KB = 900, 1.6, 96, 2048


def film(out: Path) -> Path:
    """Type the lists of words one after the other, and write what the panel shows each time as an animated GIF."""
    frames = []
    with sync_playwright() as running, serving() as address:
        browser = running.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = opened(browser, address, "panels.ipynb")
        run_all(page)
        has_images(page, ("SegmentationPlayground",))
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        panel, mark = page.locator(PANEL), page.locator(f"{PANEL} .vlmlab-rev")
        for words in LISTS:
            before = mark.get_attribute("data-rev")
            field = page.locator(f"{PANEL} .vlmlab-words textarea")
            field.fill(words)
            field.press("Tab")
            page.wait_for_function(
                "([panel, before]) => document.querySelector(panel + ' .vlmlab-rev').dataset.rev !== before",
                arg=[PANEL, before],
                timeout=LATER,
            )
            page.wait_for_function(
                "panel => !document.querySelector(panel + ' .vlmlab-busy span')", arg=PANEL, timeout=LATER
            )
            panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
            frames.append(Image.open(io.BytesIO(panel.screenshot())).convert("RGB"))
        browser.close()
    size = (WIDE, round(WIDE * max(frame.height / frame.width for frame in frames)))
    sheets = []
    for frame in frames:
        sheet = Image.new("RGB", size, "white")
        sheet.paste(frame.resize((WIDE, round(WIDE * frame.height / frame.width)), Image.Resampling.LANCZOS))
        sheets.append(sheet.quantize(COLOURS))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheets[0].save(out, save_all=True, append_images=sheets[1:], duration=int(1000 * SECONDS), loop=0, optimize=True)
    if out.stat().st_size > MOST_KB * 1024:
        sys.exit(f"{out} has {out.stat().st_size // 1024} kB, more than {MOST_KB}")
    return out


if __name__ == "__main__":
    print(film(Path(sys.argv[1] if len(sys.argv) > 1 else "data/moving.gif")))
