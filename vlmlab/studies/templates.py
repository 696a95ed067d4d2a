"""Templates of reports, and the parameters that they take.

A template lives in notebooks/reports/. Its cell tagged `parameters` holds literals only (papermill injects the new
values after that cell, so anything derived there would keep the defaults); the literals are the schema against which
`report` checks what it is given, because papermill itself only warns about a misspelt name and takes any type.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

from vlmlab.backbones.catalog import check_backbone
from vlmlab.datasets.catalog import check_dataset, is_path, warn_of_namesake
from vlmlab.errors import KINDS, VlmlabError, unknown
from vlmlab.files import is_one_path, shipped
from vlmlab.lists import entries
from vlmlab.registry import registry, unknown_system

TEMPLATES = shipped("notebooks") / "reports"


def templates() -> dict[str, Path]:
    """The report templates by name."""
    return {path.stem: path for path in sorted(TEMPLATES.glob("*.ipynb"))}


def template_named(name: str) -> Path:
    """The notebook of a template; raises `VlmlabError` if there is none of that name."""
    if name not in templates():
        raise unknown("report", name, templates())
    return templates()[name]


def parameters_of(template: Path) -> dict[str, Any]:
    """Name -> default of every parameter of a template, in its order.

    Raises `VlmlabError` if the template has no cell tagged `parameters`, or if that cell computes something.
    """
    notebook = json.loads(template.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise VlmlabError(f"{template.name} has {len(cells)} cells tagged 'parameters'; a report needs exactly one")
    defaults = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        try:
            assigned: Any = statement  # anything else has no targets
            (target,) = assigned.targets
            defaults[target.id] = ast.literal_eval(assigned.value)
        except (AttributeError, ValueError) as error:
            raise VlmlabError(
                f"{template.name}: line {statement.lineno} of the parameters cell is no 'name = literal'; move it below"
            ) from error
    return defaults


def checked(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`defaults` overridden by `given`, after each name and type was found right.

    A list holds elements of the type of the default's first element. Raises `VlmlabError` otherwise, in one line.
    """
    for name, value in given.items():
        if name not in defaults:
            raise unknown("report parameter", name, defaults)
        default = defaults[name]
        wanted = type(default)
        if not _is(value, wanted):
            raise VlmlabError(f"report parameter '{name}' must be {KINDS[wanted]} such as {default!r}, not {value!r}")
        if wanted is list:
            inner = type(default[0]) if default else str
            wrong = [item for item in value if not _is(item, inner)]
            if wrong:
                raise VlmlabError(
                    f"each item of the report parameter '{name}' must be {KINDS[inner]}, which {wrong[0]!r} is not"
                )
    return defaults | given


def from_text(name: str, text: str, defaults: dict[str, Any]) -> Any:
    """The value that `text`, from the command line, stands for: of the type of the default, lists separated by commas.

    Raises `VlmlabError` for an unknown name; a text that is no such value comes back as it is, for `checked` to refuse.
    """
    if name not in defaults:
        raise unknown("report parameter", name, defaults)
    default = defaults[name]
    if isinstance(default, str):
        return text
    if isinstance(default, list):
        items = [item for item in ([text.strip()] if is_one_path(text) else entries(text)) if item]
        return items if not default or isinstance(default[0], str) else [_literal(item) for item in items]
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        return text


def check_names(values: dict[str, Any]) -> None:
    """Refuse systems, datasets and backbones that are not known, before a kernel is started for them.

    Every template uses these parameters' names for the same things. Raises `VlmlabError` in one line.
    """
    for key in [*values.get("systems", ()), *values.get("base_new", ())]:
        if key != "all" and key not in registry():
            raise unknown_system(key)
    for name in [*values.get("datasets", ()), *filter(None, [values.get("dataset"), values.get("folder")])]:
        if is_path(name):
            if not os.path.isdir(os.path.expanduser(name)):
                raise VlmlabError(f"there is no folder {name}; give the path of a folder of images")
            continue
        warn_of_namesake(name)
        check_dataset(name)
    for name in filter(None, (values.get("backbone"), values.get("photo_backbone"))):
        check_backbone(name)
    for name in ("systems", "datasets", "shots", "seeds", "words"):
        if values.get(name) == []:
            raise VlmlabError(f"report parameter '{name}' is an empty list; give at least one")
    for name, least in (("shots", 1), ("seeds", 0)):
        if min(values.get(name, [least])) < least:
            raise VlmlabError(f"report parameter '{name}' must be {least} or more, not {min(values[name])}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind
