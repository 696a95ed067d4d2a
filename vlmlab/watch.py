"""How long work says how far it is, to whoever listens, and how a listener ends it.

Encoding a thousand images or learning for a minute happens deep below a panel's button. `told` is called there, between two
chunks or steps; it does nothing unless the thread, or one that called it, runs under `watching`. The listener may raise
`Stopped`, which ends the work where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
"""What is being done, how many steps of it are done, and how many there are."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class Stopped(Exception):
    """The work was ended by whoever watched it; what it had done so far is not an answer."""


@contextmanager
def watching(listener: Listener) -> Iterator[None]:
    """Call `listener` for what `told` says in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def told(doing: str, done: int, total: int) -> None:
    """Say how far the work is; raises `Stopped` if the listener wants no more of it."""
    listener = _listener.get()
    if listener is not None:
        listener(doing, done, total)
