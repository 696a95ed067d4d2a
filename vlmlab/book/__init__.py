"""The book: what its chapters are made with, and what holds them to their recipe.

A chapter is a notebook of `notebooks/`. It imports from here: `check` (an exercise's answer), `source` (the package's
code, shown live), `facts` (the numbers that a test compares), `published` with `beside` (figures of papers beside those
just measured), and `table` with `measured` (rows of cells, and a mean with its deviation). `vlmlab book` executes
chapters and writes them back, and says where one breaks the recipe.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "check": "vlmlab.book.exercise",
    "facts": "vlmlab.book.fact_sheet",
    "near": "vlmlab.book.fact_sheet",
    "source": "vlmlab.book.listing",
    "published": "vlmlab.studies.published",
    "beside": "vlmlab.book.ledger",
    "table": "vlmlab.book.tables",
    "measured": "vlmlab.studies.table",
}
__all__ = ["beside", "check", "facts", "measured", "near", "published", "source", "table"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
