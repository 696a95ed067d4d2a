"""Controls for a system's own settings, made from its Config: whoever adds a system gets them for nothing."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import ipywidgets as widgets

from vlmlab.widgets.panel import LABEL, WIDE


class Settings:
    """One control per field of a Config, with its help text, limits and choices; `values()` reads them."""

    def __init__(self, config: Any) -> None:
        """`config` is an instance, whose values are shown; its class's options give the limits."""
        kinds = typing.get_type_hints(type(config))
        self.fields = {field.name: field for field in dataclasses.fields(config)}
        self.first = {name: getattr(config, name) for name in self.fields}
        self.controls = {name: _control(f, kinds[name], self.first[name]) for name, f in self.fields.items()}
        self.shown = {name: control.value for name, control in self.controls.items()}
        self.box = widgets.VBox(list(self.controls.values()))

    def values(self) -> dict[str, Any]:
        """The settings that the reader changed, as `configure` takes them; an empty text is none."""
        changed = {}
        for name, control in self.controls.items():
            if control.value != self.shown[name]:
                text = isinstance(control, widgets.Text) and not isinstance(self.first[name], str)
                changed[name] = (control.value.strip() or None) if text else control.value
        return changed


def _control(field: dataclasses.Field, kind: Any, value: Any) -> widgets.Widget:
    facts = field.metadata
    optional = type(None) in typing.get_args(kind)
    common = {"description": field.name, "description_tooltip": facts.get("help", ""), "style": LABEL, "layout": WIDE}
    if facts.get("choices"):
        return widgets.Dropdown(options=list(facts["choices"]), value=value, **common)
    if optional or isinstance(value, str):
        return widgets.Text(
            value="" if value is None else str(value), placeholder="default", continuous_update=False, **common
        )
    if isinstance(value, bool):
        return widgets.Checkbox(value=value, indent=False, **common)
    low, high = facts.get("low"), facts.get("high")
    if isinstance(value, int):
        return widgets.BoundedIntText(
            value, min=-(10**9) if low is None else int(low), max=10**9 if high is None else int(high), **common
        )
    return widgets.FloatText(value, **common)
