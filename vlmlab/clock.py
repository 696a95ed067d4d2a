"""Seconds that mean the same whether something was cached or not.

A system's seconds must not depend on who came before it. Two things would make them: frozen features of images, which
all systems share (the first one to ask would pay for everybody), and what one system alone needs and a cache keeps for
it, such as an encoder that it trained (the second run would get it for nothing). So

    with Clock() as clock:
        with uncounted(): ...           what everybody shares takes no time
        charge(seconds, cpu_seconds)    what was found ready takes as long as making it had taken
    clock.read()

A clock belongs to the thread that entered it; outside of any, `uncounted` and `charge` do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

_running: ContextVar[tuple[Clock, ...]] = ContextVar("running", default=())


class Clock:
    """Seconds since it was entered, by the wall and of the processor (all threads together); `add` corrects them."""

    def __init__(self) -> None:
        self._began = _now()
        self._end: tuple[float, float] | None = None
        self._added = (0.0, 0.0)

    def __enter__(self) -> Clock:
        self._began = _now()
        self._token = _running.set((*_running.get(), self))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._end = _now()
        _running.reset(self._token)

    def add(self, seconds: float, cpu_seconds: float) -> None:
        """Seconds that were spent elsewhere, or, below 0, that do not count."""
        self._added = (self._added[0] + seconds, self._added[1] + cpu_seconds)

    def read(self) -> tuple[float, float]:
        """(seconds, cpu_seconds) so far, or until it was left."""
        now = self._end or _now()
        wall, cpu = (end - began + added for end, began, added in zip(now, self._began, self._added, strict=True))
        return max(0.0, wall), max(0.0, cpu)


@contextmanager
def uncounted() -> Iterator[None]:
    """What happens inside takes no time on any clock of this thread."""
    began = _now()
    try:
        yield
    finally:
        wall, cpu = (end - start for end, start in zip(_now(), began, strict=True))
        charge(-wall, -cpu)


def charge(seconds: float, cpu_seconds: float) -> None:
    """Add seconds to every clock that runs in this thread."""
    for clock in _running.get():
        clock.add(seconds, cpu_seconds)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
