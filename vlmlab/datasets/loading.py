"""`load_dataset`: from a name or a folder to a dataset, whoever makes or reads it."""

from __future__ import annotations

import os
from pathlib import Path

from vlmlab.datasets.catalog import BY_NAME, canonical, check_dataset, relative, warn_of_namesake
from vlmlab.datasets.composed import COMPOSED, load_composed
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.digits import load_digits
from vlmlab.datasets.folder import load_folder
from vlmlab.datasets.microworld import load_microworld
from vlmlab.datasets.photographs import load_photographs
from vlmlab.datasets.standard import load_standard
from vlmlab.datasets.tableaux import load_tableaux


def load_dataset(
    name_or_path: str | os.PathLike,
    root: str | os.PathLike | None = None,
    download: bool = False,
    seed: int = 0,
    size: int = 64,
    skip_broken: bool = False,
) -> Dataset:
    """A dataset by the name that `vlmlab datasets` lists, or a folder of images by its path.

    Args:
        name_or_path: a listed name in any spelling, or a folder (see `catalog.is_path`).
        root: folder of the standard datasets; vlmlab's cache by default.
        download: whether a missing standard dataset may be fetched.
        seed: of the split where none is given, and of MicroWorld's drawings; keep 0 to compare with others.
        size: side in pixels at which MicroWorld and digits are made: the backbone's image size.
        skip_broken: leave out images that cannot be read (they are listed in `skipped`) instead of raising.

    Raises:
        VlmlabError: an unknown name, a missing, empty or single-class folder, an unreadable image, a missing dataset.
    """
    name = os.fspath(name_or_path)
    key = canonical(name)
    check_dataset(name)
    if key not in BY_NAME:
        return load_folder(Path(name), seed, skip_broken)
    warn_of_namesake(name)
    if key == "digits":
        return load_digits(size)
    if key == "photographs":
        return load_photographs()
    if relative(key):
        return load_tableaux(key, size, seed)
    if key in COMPOSED:
        return load_composed(key, size, seed)
    if BY_NAME[key].offline:
        return load_microworld(key, size, seed)
    return load_standard(key, root and Path(root), download, seed, skip_broken)
