"""Descriptions of classes by a language model: those that come with vlmlab, and one's own in the published formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path

KINDS = ("sentences", "descriptors")


def load_descriptions(source: str, kind: str) -> dict[str, list[str]]:
    """Class -> its "sentences" (CuPL) or "descriptors" (VCD).

    Args:
        source: the name of a dataset, whose file in data/descriptions is read (the shifted versions of `objects` use
            its own), or the path of a JSON file {class: [text, ...]}, as CuPL and VCD publish them.
        kind: one of KINDS; a published file has one kind only and is taken as it is.

    Raises:
        VlmlabError: there is no such file, it is no JSON of this form, or a class has no text.
    """
    path = Path(source)
    if path.suffix != ".json":
        folder = data_path("descriptions")
        path = folder / f"{source}.json"
        if not path.is_file() and source.startswith("objects-"):
            path = folder / "objects.json"
    if not path.is_file():
        raise VlmlabError(
            f"there are no descriptions of {source}; write {{class: [text, ...]}} to a .json file and name it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = content.get(kind, content)
        found = {name: [str(text) for text in texts] for name, texts in table.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise VlmlabError(
            f"{path.name} is no JSON of the form {{class: [text, ...]}}; see data/descriptions"
        ) from error
    empty = next((name for name, texts in found.items() if not texts), None)
    if empty is not None:
        raise VlmlabError(f"{path.name} has no {kind} for '{empty}'; write at least one")
    return found


def of_classes(table: dict[str, list[str]], classes: Sequence[str]) -> list[list[str]]:
    """The texts of each class, in order; spaces and underscores are the same. `VlmlabError` names a class that lacks."""
    known = {name.replace("_", " ").lower(): texts for name, texts in table.items()}
    missing = [name for name in classes if name.replace("_", " ").lower() not in known]
    if missing:
        raise VlmlabError(
            f"the descriptions lack '{missing[0]}' ({len(missing)} of {len(classes)} classes); add it to the file"
        )
    return [known[name.replace("_", " ").lower()] for name in classes]
