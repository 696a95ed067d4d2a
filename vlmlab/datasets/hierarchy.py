"""A class hierarchy: a tree whose leaves are the classes, and the label sets that one can cut out of it.

"What is it?" has many right answers: a robin, a bird, an animal. A tree says which names are answers to which question.
A *label set* is a list of names that together cover every class once: the leaves; the children of one node, for the
classes below it; or a *cut*, which stops at different depths in different branches (ProTeCt, arXiv:2306.02240).

Dimensions: C classes (leaves), A names of a label set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import LongTensor

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, expanded

ROOT = "everything"
"""Name of the root where a dataset's nested groups become a tree; no image is ever compared with it."""

DROP_RATES, CUTS_PER_RATE = (0.1, 0.3, 0.5, 0.7, 0.9), 5
"""The cuts that mean treecut accuracy is measured on: five at each rate, all different, as ProTeCt's release stores them."""

TRIES = 1000
"""So often a cut is drawn at each rate, if none is new: a small tree has fewer cuts than are asked for."""

Children = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class LabelSet:
    """Names to choose from, and the right one for every class.

    names: A of them; of_class [C] the position of the name that each class lies below, -1 for a class below none.
    """

    names: tuple[str, ...]
    of_class: LongTensor


class Hierarchy:
    """A tree over classes.

    classes (the leaves, in label order); root; children {inner node: names}; parent {name: inner node}; inner (the inner
    nodes, each after its parent, the root first).
    """

    def __init__(self, children: Children, classes: Sequence[str], source: str = "the hierarchy") -> None:
        """`children` says of every inner node which nodes stand directly below it; `source` is its name in errors.

        Raises `VlmlabError` if that is no tree, or if its leaves are not exactly the `classes`.
        """
        self.classes = [_spoken(name) for name in classes]
        self.children = {_spoken(node): tuple(_spoken(n) for n in below) for node, below in children.items()}
        self.parent: dict[str, str] = {}
        for node, below in self.children.items():
            for name in below:
                if name in self.parent:
                    raise VlmlabError(
                        f"{source} is no tree: '{name}' stands below '{self.parent[name]}' and '{node}'; keep one of them"
                    )
                self.parent[name] = node
        tops = [node for node in self.children if node not in self.parent]
        if len(tops) > 1:
            raise VlmlabError(
                f"{source} is no tree: nothing stands above '{tops[0]}' nor above '{tops[1]}'; put them below one root"
            )
        self.inner: tuple[str, ...] = ()
        for node in tops:
            self.inner = self._inner_below(node)
        lost = [node for node in self.children if node not in self.inner]
        if lost or not tops:
            node = lost[0] if lost else next(iter(self.children), "")
            raise VlmlabError(f"{source} is no tree: '{node}' stands above itself in a circle; break it at one place")
        self.root = tops[0]
        known = set(self.classes)
        for name in (*self.parent, self.root):
            if name in self.children and name in known:
                raise VlmlabError(
                    f"'{name}' is a class and has others below it in {source}; give the group another name"
                )
            if name not in self.children and name not in known:
                raise VlmlabError(f"'{name}' is a leaf of {source} and no class; remove it, or put classes below it")
        missing = [name for name in self.classes if name not in self.parent]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise VlmlabError(f"class '{missing[0]}'{more} is missing in {source}; put it below a node")

    def __repr__(self) -> str:
        return f"Hierarchy({len(self.classes)} classes below {len(self.inner)} nodes)"

    def _inner_below(self, node: str) -> tuple[str, ...]:
        below = (self._inner_below(name) for name in self.children[node] if name in self.children)
        return (node, *(name for names in below for name in names))

    def path(self, name: str) -> list[str]:
        """The inner nodes above a class or node, the root first."""
        above = []
        while name in self.parent:
            name = self.parent[name]
            above.append(name)
        return above[::-1]

    def of(self, classes: Sequence[str]) -> Hierarchy:
        """The part above these of its classes; a node with one child left gives way to the child.

        Raises `VlmlabError` for a name that is none of its classes.
        """
        kept: dict[str, tuple[str, ...]] = {}
        wanted = {_spoken(name) for name in classes}

        def pruned(node: str) -> str | None:
            if node not in self.children:
                return node if node in wanted else None
            left = [name for name in map(pruned, self.children[node]) if name is not None]
            if len(left) == 1 and (node != self.root or left[0] in kept):
                return left[0]
            if left:
                kept[node] = tuple(left)
            return node if left else None

        pruned(self.root)
        return Hierarchy(kept, classes)

    @property
    def leaves(self) -> LabelSet:
        """All classes."""
        return LabelSet(tuple(self.classes), torch.arange(len(self.classes)))

    def below(self, node: str) -> LabelSet:
        """The children of an inner node; only the classes below it have a right answer."""
        return self._label_set(self.children[node])

    def cut(self, drop: float, generator: torch.Generator | None = None) -> LabelSet:
        """A random cut: every inner node but the root is closed with probability `drop`, and so is all that is below it.

        A closed node answers for its classes. At 0 the cut is the leaves, at 1 the children of the root. Random numbers
        come from `generator`, or from PyTorch's own.
        """
        closed = torch.rand(len(self.inner), generator=generator) < drop
        opened, names = {self.root}, []
        for node, shut in zip(self.inner[1:], closed[1:].tolist(), strict=True):
            if self.parent[node] in opened and not shut:
                opened.add(node)
        for node in self.inner:
            if node in opened:
                names += [name for name in self.children[node] if name not in opened]
        return self._label_set(names)

    def cuts(self, seed: int = 0) -> list[LabelSet]:
        """The cuts of mean treecut accuracy: CUTS_PER_RATE new ones at each of DROP_RATES, from the highest on; fewer if
        the tree has no more."""
        generator = torch.Generator().manual_seed(seed)
        found: dict[tuple[str, ...], LabelSet] = {}
        for rate in reversed(DROP_RATES):
            wanted = len(found) + CUTS_PER_RATE
            for _ in range(TRIES):
                cut = self.cut(rate, generator)
                found.setdefault(cut.names, cut)
                if len(found) == wanted:
                    break
        return list(found.values())

    def _label_set(self, names: Sequence[str]) -> LabelSet:
        place = {name: i for i, name in enumerate(names)}
        above = [next((place[n] for n in (name, *self.path(name)) if n in place), -1) for name in self.classes]
        return LabelSet(tuple(names), torch.tensor(above))


def nested(groups: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """{node: children} of {super group: {group: class names}}, below one ROOT."""
    children = {ROOT: list(groups)}
    for node, below in groups.items():
        children[node] = list(below)
        children |= {group: list(names) for group, names in below.items()}
    return children


def read_hierarchy(path: str | Path, classes: Sequence[str]) -> Hierarchy:
    """The tree of a JSON file {node: [child, ...]} (or {"children": that, "provenance": ...}) over these classes.

    Raises `VlmlabError` if there is no such file, it has another form, or it is no tree with these leaves.
    """
    path = expanded(path)
    if not os.path.isfile(path):
        raise VlmlabError(f"there is no hierarchy {path}; write {{node: [child, ...]}} to a .json file")

    def once(pairs: list[tuple]) -> dict:
        names = [name for name, _ in pairs]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise VlmlabError(f"{path.name} lists the children of '{double}' twice; join the two lists")
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
        children = content.get("children", content)
        fits = isinstance(children, dict) and all(
            isinstance(below, list) and all(isinstance(name, str) for name in below) for below in children.values()
        )
    except (ValueError, AttributeError) as error:
        raise VlmlabError(f"{path.name} is no JSON of the form {{node: [child, ...]}}") from error
    if not fits or not children:
        raise VlmlabError(f"{path.name} is no JSON of the form {{node: [child, ...]}}")
    return Hierarchy(children, classes, path.name)


def hierarchy_of(dataset) -> Hierarchy:
    """The tree over a dataset's classes: its own groups (MicroWorld's objects), or the file in data/hierarchies.

    Raises `VlmlabError` if it has none.
    """
    if dataset.hierarchy:
        # Shifted versions and halves may leave a group with one member, which is no choice.
        return Hierarchy(nested(dataset.hierarchy), dataset.classes, f"the hierarchy of {dataset.name}").of(
            dataset.classes
        )
    path = data_path("hierarchies", f"{dataset.name}.json")
    if not os.path.isfile(path):
        raise VlmlabError(
            f"{dataset.name} comes without a class hierarchy; name a JSON file {{node: [child, ...]}} "
            "(--set hierarchy=tree.json), or choose objects"
        )
    return read_hierarchy(path, dataset.classes)


def _spoken(name: str) -> str:
    return name.replace("_", " ")
