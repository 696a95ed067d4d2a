"""Labelled images: MicroWorld's suite, handwriting, photographs, folders and the field's standard sets.

Importing this package loads nothing heavy: `vlmlab.datasets.catalog` is all that a listing needs, and the names below
are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlab.datasets.dataset import Dataset
    from vlmlab.datasets.image_set import ImageSet
    from vlmlab.datasets.loading import load_dataset
    from vlmlab.datasets.multi_task import MultiTask
    from vlmlab.datasets.protocol import PROTOCOLS, Protocol
    from vlmlab.datasets.splits import base_new, few_shot
    from vlmlab.datasets.task import Task
    from vlmlab.datasets.truth import Truth

_HOMES = {
    "Dataset": "dataset",
    "ImageSet": "image_set",
    "MultiTask": "multi_task",
    "PROTOCOLS": "protocol",
    "Protocol": "protocol",
    "Task": "task",
    "Truth": "truth",
    "base_new": "splits",
    "few_shot": "splits",
    "load_dataset": "loading",
}

__all__ = [
    "PROTOCOLS",
    "Dataset",
    "ImageSet",
    "MultiTask",
    "Protocol",
    "Task",
    "Truth",
    "base_new",
    "few_shot",
    "load_dataset",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
