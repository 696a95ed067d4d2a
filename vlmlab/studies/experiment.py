"""One question to the workbench, written down so that its answer can be found again.

An `Experiment` names everything that decides the numbers, and nothing else. Its key is a hash of that content: two
machines that ask the same question write the same file name, and a sweep that begins again knows what is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vlmlab.errors import VlmlabError, unknown

SPLITS = ("all", "base", "new", "shift")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A system, on a dataset, with a backbone.

    Attributes:
        dataset: a name of `vlmlab datasets`, or the path of a folder of pictures (kept as an absolute path).
        shots: training pictures per class.
        seed: of the choice of those pictures and of training.
        split: "all" classes; "base": learn and report on the base half; "new": learn on base, report on the other half;
            "shift": learn on all classes, report also on the same classes in other styles (objects has four).
        config: settings of the system that differ from its defaults, as (name, value) pairs in order of name.
        views: random crops per training picture, 0 for none (see `learning.fit`).
        root: folder of the standard datasets, where one is used.
        skip_broken: leave out pictures of a folder that cannot be read.
    """

    system: str
    dataset: str
    backbone: str = "micro-vit"
    shots: int = 16
    seed: int = 0
    split: str = "all"
    config: tuple[tuple[str, bool | int | float | str | None], ...] = ()
    views: int = 0
    root: str | None = None
    skip_broken: bool = False

    def __post_init__(self) -> None:
        """Bring paths and settings into one form; raises `VlmlabError` for a value that cannot be meant."""
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        for name in ("shots", "seed", "views"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise VlmlabError(f"{name} must be a whole number of 0 or more, not {value!r}")
        settings = self.config.items() if isinstance(self.config, Mapping) else self.config
        object.__setattr__(self, "config", tuple(sorted((str(name), value) for name, value in settings)))
        for name in ("dataset", "root"):
            value = getattr(self, name)
            if value is not None and (name == "root" or is_path(value)):
                object.__setattr__(self, name, str(Path(value).expanduser().resolve()))

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for the content."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_json(self) -> dict:
        """The content as JSON knows it; `Experiment(**content)` gives it back."""
        return dataclasses.asdict(self) | {"config": {name: value for name, value in self.config}}

    def __str__(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.config)
        return (
            f"{self.system} on {self.dataset} with {self.backbone}, {self.shots} shots, seed {self.seed}, "
            f"split {self.split}{settings}"
        )


def is_path(dataset: str) -> bool:
    """Whether a dataset is named by its folder: "pictures/cats", "./cats", or an existing folder of that name."""
    return "/" in dataset or "\\" in dataset or dataset.startswith((".", "~")) or Path(dataset).is_dir()


def grid(
    systems: Iterable[str],
    datasets: Iterable[str],
    backbones: Iterable[str] = ("micro-vit",),
    shots: Iterable[int] = (16,),
    seeds: Iterable[int] = (0,),
    **same,
) -> list[Experiment]:
    """Every combination, those that share a backbone and a dataset side by side; `same` are other fields."""
    return [
        Experiment(system=system, dataset=dataset, backbone=backbone, shots=k, seed=seed, **same)
        for backbone, dataset, system, k, seed in itertools.product(
            list(backbones), list(datasets), list(systems), list(shots), list(seeds)
        )
    ]
