"""Commands that say what there is."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from vlmlab.cli.options import Json
from vlmlab.cli.output import show
from vlmlab.errors import VlmlabError, unknown

COLUMNS = 100  # of a terminal


def systems(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", help="Only systems in whose line all these words stand.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only of this family, such as text_prompt or adapter.")] = None,
    setup: Annotated[str | None, typer.Option(help="Only of this setup, such as few-shot or training-free.")] = None,
    json_: Json = False,
) -> None:
    """List the systems of the survey that run here."""
    from vlmlab.registry import registry, system_label

    every = registry().values()
    for what, value, known in (
        ("family", family, [i.family for i in every]),
        ("setup", setup, [i.setup for i in every]),
    ):
        if value is not None and value not in known:
            raise unknown(what, value, sorted(set(known)))
    chosen = [i for i in every if family in (None, i.family) and setup in (None, i.setup)]
    wanted = [word.lower() for word in words or ()]
    chosen = [i for i in chosen if all(word in " ".join(map(str, i.row().values())).lower() for word in wanted)]
    if not chosen:
        raise VlmlabError("no system fits all of that; ask for less, or see vlmlab systems without words")
    if json_:
        show([info.row() for info in chosen], json_)
        return
    rows = [(i.key, i.section, str(i.year), i.setup, f"{system_label(i.key)}: {i.learns}") for i in chosen]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        print(f"{line}  {textwrap.shorten(row[4], COLUMNS - 2 - len(line), placeholder=' ...')}")


def backbones(json_: Json = False) -> None:
    """List the backbones.

    Those that are offline need no download. Any ARCH/TAG of open_clip and any ARCH@FILE (a checkpoint) work as well: CLIP,
    and SigLIP and SigLIP 2 (ViT-B-16-SigLIP2/webli), whose image tower takes no visual prompts.
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
