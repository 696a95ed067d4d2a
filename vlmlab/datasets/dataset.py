"""A dataset: pictures in three splits, the names of their classes, and the field's sentences around a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmlab.datasets.catalog import DATASETS
from vlmlab.datasets.image_set import ImageSet
from vlmlab.errors import VlmlabError, unknown

PLAIN_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Dataset:
    """Pictures and words of one dataset.

    Attributes:
        classes: names in the order of the labels.
        templates: sentences with "{}" for the name; the first is the one for a single prompt.
        tasks: what its labels allow ("classification", "multi-label", "detection", "segmentation").
        gap: what separates it from the pretraining of the micro backbones, in words.
        mirrors: the dataset of the field that it stands for.
        skipped: files that could not be read and were left out at the user's wish.
    """

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    test: ImageSet
    tasks: tuple[str, ...] = ("classification",)
    gap: str = ""
    mirrors: str = ""
    skipped: tuple[str, ...] = ()


def load_dataset(
    name: str | Path,
    root: Path | str | None = None,
    download: bool = False,
    seed: int = 0,
    size: int = 64,
    skip_broken: bool = False,
) -> Dataset:
    """A dataset by its name (`vlmlab datasets` lists them) or, for a folder of pictures, by its path.

    Args:
        root: folder that holds the standard datasets of the field.
        download: whether one that is missing there may be downloaded.
        seed: of the split of a folder that has none.
        size: side in pixels at which MicroWorld is painted.
        skip_broken: leave out pictures of a folder that cannot be read, instead of refusing.

    Raises:
        VlmlabError: an unknown name (with the closest ones), or whatever is wrong with the folder, in one line.
    """
    name = str(name)
    known = {info.name: info for info in DATASETS}
    if name in known:
        info = known[name]
        if name == "digits":
            from vlmlab.datasets.digits import load

            return load(info)
        if info.offline:
            from vlmlab.datasets.microworld import load

            return load(info, size)
        from vlmlab.datasets.standard import load

        return load(info, root, download, seed)
    if "/" in name or "\\" in name or name.startswith((".", "~")) or Path(name).is_dir():
        from vlmlab.datasets.folder import load

        return load(Path(name).expanduser(), seed, skip_broken)
    error = unknown("dataset", name, known)
    raise VlmlabError(f"{error}; a folder of pictures is named by its path, such as ./{name}")
