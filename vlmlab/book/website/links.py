"""Is every link of a built site alive, and does a page ask another server for anything?"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RESOURCES = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
"""What a browser fetches by itself, and the attribute that says from where."""


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        address = given.get(RESOURCES.get(tag, ""), "")
        if address and not address.startswith(("data:", "#")):
            self.fetched.append(address)


def faults(site: Path) -> Iterator[str]:
    """Dead links, missing places on a page, and what comes from elsewhere: one line each."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.relative_to(site).parts:
            pages[path.resolve()] = page = _Page()
            page.feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        shown = path.relative_to(site.resolve())
        for address in page.fetched:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                yield f"{shown} loads {address} from elsewhere"
            elif not (path.parent / unquote(parts.path)).is_file():
                yield f"{shown} lacks {address}"
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue  # papers: not fetched
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target not in pages and not target.is_file():
                yield f"{shown} links to {address}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                yield f"{shown} links to {address}: the page has no such place"
