"""The package's own code, shown in a chapter as it is now: nobody pastes code that can go stale."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from vlmlab.errors import unknown
from vlmlab.registry import load_system

ROOT = Path(__file__).resolve().parents[2]


class Source:
    """Code with its place; in a notebook coloured by the front end."""

    def __init__(self, pieces: list[tuple[str, str]]) -> None:
        self.pieces = pieces  # (place, code)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        shown = [f"`{place}`\n\n```python\n{code}\n```" for place, code in self.pieces]
        return {"text/markdown": "\n\n".join(shown), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return "\n\n".join(f"# {place}\n{code}" for place, code in self.pieces)


def source(thing: str | Any, *names: str) -> Source:
    """The code of a system's methods, or of any function or class.

    Args:
        thing: a system's key such as "coop", or a function, class or module.
        names: attributes of it; none shows `thing` itself.

    Raises:
        VlmlabError: an unknown system, or a name that it does not have.
    """
    owner = load_system(thing) if isinstance(thing, str) else thing
    if not names:
        return Source([_piece(owner)])
    pieces = []
    for name in names:
        if not hasattr(owner, name):
            own = [n for n, _ in inspect.getmembers(owner, callable) if not n.startswith("__")]
            raise unknown(f"part of {getattr(owner, '__name__', owner)}", name, own)
        pieces.append(_piece(inspect.getattr_static(owner, name)))
    return Source(pieces)


def _piece(thing: Any) -> tuple[str, str]:
    """(file and line, code) of a function, method, property or class."""
    if isinstance(thing, property):
        thing = thing.fget
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing)).resolve()
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{shown}, line {max(first, 1)}", textwrap.dedent("".join(lines)).rstrip()
