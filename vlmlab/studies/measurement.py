"""What `vlmlab bench` says of one thing: a value, what it is compared with, and how both were measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Measurement:
    """`value` and `baseline` in `unit`; `ratio` says how many times better than the baseline the value is."""

    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    note: str


def seconds_of(work: Callable[[], object], times: int) -> float:
    """The median time of `times` calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
