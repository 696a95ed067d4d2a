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
    from vlmlab.datasets import Task
    from vlmlab.registry import load_system
    from vlmlab.studies.run import shared_bank, shared_dataset

    bank, system = shared_bank(backbone), load_system("tip_adapter")
    task = Task(bank.backbone, shared_dataset(dataset), shots, seed)
    method = system(bank.backbone, system.configure(bank.backbone, search=False, passes=0))
    method.bank = bank
    method.prepare(task)
    return method, task
