"""Backbones: frozen vision-language models, opened up. The names below are imported when they are first used."""

from __future__ import annotations

import importlib

_HOMES = {"load_backbone": "loading", "Backbone": "backbone"}
__all__ = ["Backbone", "load_backbone"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
