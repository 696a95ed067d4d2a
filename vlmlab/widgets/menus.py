"""Menus that say names and hold keys."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import unknown
from vlmlab.registry import registry, system_label
from vlmlab.widgets.panel import LABEL, WIDE


def menu(what: str, options: Sequence[str], value: str) -> widgets.Dropdown:
    """A menu; raises `VlmlabError` with the nearest option if there is no `value`."""
    if value not in options:
        raise unknown(what, value, list(options))
    return widgets.Dropdown(options=list(options), value=value, description=what, style=LABEL, layout=WIDE)


def system_menu(keys: Sequence[str], value: str) -> widgets.Dropdown:
    """A menu of systems by name; its value is the key. Raises `VlmlabError` if `value` is none of `keys`."""
    if value not in keys:
        raise unknown("system", value, list(keys))
    options = [(system_label(key), key) for key in keys]
    return widgets.Dropdown(options=options, value=value, description="system", style=LABEL, layout=WIDE)


def classifying(*setups_out: str) -> list[str]:
    """Keys of the systems that classify, without those of some setups."""
    return [k for k, info in registry().items() if "classification" in info.tasks and info.setup not in setups_out]


def drawn_datasets(systems: Sequence[str] = ()) -> list[str]:
    """Names of the datasets that need no network, have training images, and ground truth for one of these systems, or, if none
    is named, one label per image."""
    tasks = {task for key in systems for task in registry()[key].tasks} or {"classification"}
    return [d.name for d in DATASETS if d.offline and tasks & set(d.tasks) and d.splits["train"]]
