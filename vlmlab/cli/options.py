"""Options that several commands have, and how their text is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vlmlab.errors import VlmlabError
from vlmlab.files import expanded, is_one_path
from vlmlab.lists import entries

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else on standard output.")]


def path_in(given: str | Path) -> Path:
    """A path as it was typed, ~ replaced; an empty one, which would mean the current folder, is refused."""
    if not str(given).strip():
        raise typer.BadParameter("an empty path was given; name a file or a folder, the current one is .")
    return expanded(given)


Root = Annotated[
    Path | None, typer.Option(parser=path_in, metavar="PATH", help="Folder that holds the standard datasets.")
]


Download = Annotated[bool, typer.Option("--download", help="Download a standard dataset that is missing.")]


SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.")]


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the system, such as lr=0.01; may be repeated."),
]


Views = Annotated[int, typer.Option(help="Random crops per training image, as the field trains; 0 for none.")]


Targets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIST",
        help="Other datasets to test on as well, by their own class names; others: all embedded ones that show other "
        "classes.",
    ),
]


Noise = Annotated[float, typer.Option(help="Share of the training labels that are wrong, 0 to 1.")]


TestPictures = Annotated[
    int, typer.Option(help="Measure on about so many test images, equally many of every class; 0: on all.", min=0)
]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def names_in(given: Sequence[str]) -> list[str]:
    """["a, b", "c"] -> ["a", "b", "c"], each once; raises `VlmlabError` if there is no name.

    What exists under its whole text (./Smith, J) is one name, and so is what stands in double quotes.
    """
    texts = ([text.strip()] if is_one_path(text) else entries(text) for text in given)
    names = list(dict.fromkeys(name for text in texts for name in text if name))
    if not names:
        raise VlmlabError("an empty list was given; separate names by commas")
    return names


def targets_in(given: Sequence[str] | None, *sources: str) -> tuple[str, ...]:
    """["a, b"] -> ("a", "b"); "others" are the embedded datasets of other classes than those that are learned."""
    if not given:
        return ()
    if names_in(given) != ["others"]:
        return tuple(names_in(given))
    from vlmlab.datasets.catalog import DATASETS, versions

    same = {name for source in sources for name in (source, *versions(source))}
    suited = (d for d in DATASETS if d.offline and d.splits["train"] and d.tasks == ("classification",))
    shifted = {version for d in DATASETS for version in versions(d.name)}
    return tuple(d.name for d in suited if d.name not in same | shifted)


def numbers_in(option: str, given: Sequence[str]) -> list[int]:
    """["1, 2"] -> [1, 2]; raises `VlmlabError` if something else than whole numbers is given."""
    try:
        return [int(name) for name in names_in(given)]
    except ValueError as error:
        text = ",".join(given)
        raise VlmlabError(f"--{option} takes whole numbers separated by commas, such as 1,2,4, not '{text}'") from error


def check_setting_names(keys: Sequence[str], settings: Sequence[tuple[str, str]]) -> None:
    """Raises `VlmlabError` for a setting that a system has not, before anything heavy is imported."""
    from vlmlab.errors import unknown
    from vlmlab.registry import own_systems, settings_of
    from vlmlab.studies.experiment import settings_for

    for key in keys:
        known = None if key in own_systems() else settings_of(key)
        for name in settings_for(key, settings):
            if known is not None and name not in known:
                raise _of_system(key, unknown("setting", name, known), len(keys) > 1)


def check_settings(keys: Sequence[str], settings: Sequence[tuple[str, str]]) -> None:
    """Raises `VlmlabError` for a setting that a system has not, or of the wrong type, before the first experiment."""
    from types import SimpleNamespace

    from vlmlab.registry import load_system
    from vlmlab.studies.experiment import settings_for

    for key in keys:
        try:
            load_system(key).configure(SimpleNamespace(embedded=False), **settings_for(key, settings))
        except VlmlabError as error:
            raise _of_system(key, error) from error


def _of_system(key: str, error: VlmlabError, several: bool = True) -> VlmlabError:
    """The error with the system that it is about, where there may be several."""
    return VlmlabError(f"{key}: {error} (a setting of one system is written SYSTEM.KEY=VALUE)") if several else error
