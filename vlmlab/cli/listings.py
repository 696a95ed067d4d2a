"""Commands that say what there is."""

from __future__ import annotations

from vlmlab.cli.options import Json
from vlmlab.cli.output import show


def systems(json_: Json = False) -> None:
    """List the systems of the survey that run here."""
    from vlmlab.registry import registry

    rows = [info.row() for info in registry().values()]
    show(rows, json_, ["key", "section", "year", "setup", "learns", "title"])


def backbones(json_: Json = False) -> None:
    """List the backbones.

    Those that are offline need no download. Any ARCH/TAG of open_clip and any ARCH@FILE (a checkpoint) work as well.
    """
    from vlmlab.backbones.catalog import BACKBONES

    names = ["name", "image_tower", "text_tower", "embed_dim", "image_size", "megabytes", "offline"]
    show([{name: getattr(info, name) for name in names} for info in BACKBONES], json_)


def datasets(json_: Json = False) -> None:
    """List the datasets.

    Those that are offline need no download. A folder of images is named by its path.
    """
    from vlmlab.datasets.catalog import DATASETS

    names = ["name", "classes", "splits", "tasks", "mirrors", "offline"]
    show([{name: getattr(info, name) for name in names} for info in DATASETS], json_)
