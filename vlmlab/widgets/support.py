"""The support set on a panel: the sliders that choose it, and Tip-Adapter's cache over it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import ipywidgets as widgets

from vlmlab.widgets.panel import LABEL, WIDE

if TYPE_CHECKING:
    from vlmlab.datasets.task import Task
    from vlmlab.methods.adapter.tip_adapter import TipAdapter

SHOTS = (1, 2, 4, 8, 16)
SLOW = {"style": LABEL, "layout": WIDE, "continuous_update": False}  # for sliders after which something is computed


def support_sliders(shots: int, seed: int) -> tuple[widgets.SelectionSlider, widgets.IntSlider]:
    """Sliders for the shots and the seed of a support set, with the classes by which tests find them."""
    sliders = (
        widgets.SelectionSlider(options=SHOTS, value=shots, description="shots", **SLOW),
        widgets.IntSlider(seed, 0, 9, description="seed", **SLOW),
    )
    for slider in sliders:
        slider.add_class(f"vlmlab-{slider.description}")
    return sliders


@functools.lru_cache(maxsize=64)
def cache_over(dataset: str, backbone: str, shots: int, seed: int) -> tuple[TipAdapter, Task]:
    """Tip-Adapter without a search, prepared once per support set, and the task that it caches."""
    from vlmlab.studies.experiment import Experiment
    from vlmlab.studies.run import construct

    settings = {"search": False, "passes": 0}
    ready = construct(Experiment("tip_adapter", dataset, backbone, shots, seed, config=settings))
    return ready.prepare(), ready.task
