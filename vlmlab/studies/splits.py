"""What `--split` asks for, as objects that `run`, `sweep` and the command line obey.

A split says which classes are learned, of which systems and datasets it can be asked, and in a sentence what is measured;
how it is measured stands in `run.MEASURED`. Imports no PyTorch: a sweep is planned without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmlab.datasets.catalog import BY_NAME, DATASETS, canonical, shifted_versions
from vlmlab.files import data_path
from vlmlab.registry import SystemInfo

CLASSIFYING = frozenset({"classification", "multi-label classification"})


def has_tree(dataset: str) -> bool:
    """Whether a listed dataset comes with a class tree; the family of objects has its own in the code."""
    return dataset.startswith("objects") or data_path("hierarchies", f"{dataset}.json").is_file()


def _any(dataset: str) -> str | None:
    return None


def _shifted(dataset: str) -> str | None:
    if shifted_versions(dataset):
        return None
    able = ", ".join(info.name for info in DATASETS if shifted_versions(info.name))
    return f"there are no shifted versions of {dataset} to measure the shift on; choose {able}"


def _with_tree(dataset: str) -> str | None:
    if dataset not in BY_NAME or has_tree(dataset):  # of a folder the tree is looked for when it is read
        return None
    return f"{dataset} comes without a class hierarchy; choose objects, or another split"


@dataclass(frozen=True)
class Split:
    """One way to ask.

    Attributes:
        key: what `--split` takes.
        text: what is learned and measured, for a help text.
        learned_on: the classes that are learned, "all" or "base".
        protocol: the one of `datasets.PROTOCOLS` whose settings systems have then (`by_protocol`).
        lacks: dataset name -> why it cannot be asked on it, as a sentence, or None.
    """

    key: str
    text: str
    learned_on: str = "all"
    protocol: str = "few-shot"
    lacks: Callable[[str], str | None] = _any

    def refusal(self, info: SystemInfo, dataset: str) -> str | None:
        """Why a system cannot be asked on a dataset, as a sentence; None if it can."""
        if self.key != "all" and not CLASSIFYING & set(info.tasks):
            return f"{info.key} is measured on all classes at once, base and new apart; leave out --split {self.key}"
        return self.lacks(canonical(dataset))


SPLITS: dict[str, Split] = {
    split.key: split
    for split in (
        Split("all", "all classes"),
        Split("base", "learn and test on half of them", "base", "base-to-new"),
        Split("new", "test on the other half", "base", "base-to-new"),
        Split("shift", "all, and also in other styles", protocol="domain-shift", lacks=_shifted),
        Split("hierarchy", "all, and also at every level of the class tree", lacks=_with_tree),
    )
}
"""Splits by key, in the order of tables."""
