"""Descriptions of classes by a language model: those that come with vlmlab, and one's own in the published formats."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, expanded

KINDS = ("sentences", "descriptors")
SHARED = (
    {f"objects-{style}": "objects" for style in ("v2", "sketch", "silhouette", "mosaic", "corrupted")}
    | {"tableau": "objects"}
    | {f"tableau-{kind}": "objects" for kind in ("paired", "cluttered", "silhouette", "many", "128")}
)
"""Datasets that show the classes of another one and use its file."""


def load_descriptions(source: str, kind: str, classes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Class -> its "sentences" (CuPL) or "descriptors" (VCD).

    Args:
        source: the name of a dataset, whose file in data/descriptions is read, or the path of a JSON file
            {class: [text, ...]}, as CuPL and VCD publish them.
        kind: one of KINDS; a published file has one kind only and is taken as it is.
        classes: for a dataset without a file of its own, such as a folder of images: the first file in
            data/descriptions that knows all of these names is read.

    Raises:
        VlmlabError: there is no such file, it is no JSON, or it does not have this form.
    """
    path = expanded(source)
    if path.suffix == ".json":
        if not os.path.isfile(path):
            raise VlmlabError(f"there is no file {path}; give the path of a JSON file {{class: [text, ...]}}")
        return _read(path, kind)
    folder = data_path("descriptions")
    path = folder / f"{SHARED.get(source, source)}.json"
    if os.path.isfile(path):
        return _read(path, kind)
    tables = [_read(path, kind) for path in sorted(folder.glob("*.json"))]
    lacking = [[name for name in classes if _plain(name) not in _by_name(table)] for table in tables]
    best = min(range(len(tables)), key=lambda i: len(lacking[i]))
    if classes and not lacking[best]:
        return tables[best]
    known = ""
    if len(lacking[best]) < len(classes):
        known = f" (the nearest file of vlmlab lacks {_listed(lacking[best])} of {len(classes)} classes)"
    raise VlmlabError(
        f"there are no descriptions of {source}{known}; write {{class: [text, ...]}} to a .json file and name it with "
        "the setting descriptions"
    )


def _read(path: Path, kind: str) -> dict[str, list[str]]:
    """One file, in vlmlab's own form (both kinds, with `aliases` of names) or in a published one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VlmlabError(f"{path.name} is no JSON ({error}); it must read {{class: [text, ...]}}") from error
    if not isinstance(content, dict):
        raise VlmlabError(f"{path.name} holds a {type(content).__name__}; it must read {{class: [text, ...]}}")
    table = content[kind] if isinstance(content.get(kind), dict) else content
    for name, texts in table.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise VlmlabError(f"{path.name}: '{name}' must have a list of texts; it must read {{class: [text, ...]}}")
        if not texts and kind == "sentences":
            raise VlmlabError(f"{path.name} has no sentence for '{name}'; write at least one")
    # VCD's published files leave some classes without descriptors; there, as in its release, the clause is empty.
    found = {name: texts or [""] for name, texts in table.items()}
    aliases = content.get("aliases") if table is not content else None
    return found | {alias: found[name] for alias, name in (aliases or {}).items()}


def of_classes(table: dict[str, list[str]], classes: Sequence[str]) -> list[list[str]]:
    """The texts of each class, in order; spaces and underscores, small and large letters are the same.

    Raises `VlmlabError` that names the classes that have none.
    """
    known = _by_name(table)
    missing = [name for name in classes if _plain(name) not in known]
    if missing:
        raise VlmlabError(f"the descriptions lack {_listed(missing)} of {len(classes)} classes; add them to the file")
    return [known[_plain(name)] for name in classes]


def _by_name(table: dict[str, list[str]]) -> dict[str, list[str]]:
    return {_plain(name): texts for name, texts in table.items()}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _listed(names: Sequence[str], most: int = 3) -> str:
    """'a', 'b', 'c' and 4 more."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
