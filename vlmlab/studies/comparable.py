"""Whether results may stand side by side: a number means something under its protocol only.

Two results are comparable if they measure the same thing on the same images, and if what one system learned from is also what the
others were allowed to see. A training-free system sees less than any other, so it may stand beside all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlab.errors import VlmlabError
from vlmlab.learning.metrics import TITLES, main_metric
from vlmlab.registry import registry, system_label

SEES = {
    "open-vocabulary": "boxes or masks of base classes alone",
    "weakly supervised": "the names of all classes in its training images",
    "supervised": "masks of all classes",
}
"""Setup of a dense system -> what it learns from, in words; a training-free one learns from nothing."""


def must_share_protocol(results: Sequence[Mapping]) -> None:
    """Raises `VlmlabError` if these results (as `vlmlab run --json` prints them) are of more than one protocol.

    The sentence says which two differ, and in what.
    """
    for name, words in (
        ("dataset", "measured on {}"),
        ("backbone", "with the backbone {}"),
        ("split", "of the split {}"),
        ("test_pictures", "on {} test images"),
        ("validation", "on validation images: {}"),
        ("shots", "with {} shots"),
    ):
        if name == "shots" and len({registry()[r["system"]].takes_shots for r in results}) > 1:
            continue
        _alike(
            results,
            [words.format(r.get(name) or "all" if name != "validation" else bool(r.get(name))) for r in results],
        )
    _alike(results, [f"measured by {TITLES[main_metric(r['metrics'])]}" for r in results])
    must_share_supervision([r["system"] for r in results])


def must_share_supervision(systems: Sequence[str]) -> None:
    """Raises `VlmlabError` if systems (keys) learn from different kinds of ground truth, before anything is computed."""
    learning = {key: registry()[key].setup for key in systems if registry()[key].setup in SEES}
    _alike([{"system": key} for key in learning], [f"which learns from {SEES[setup]}" for setup in learning.values()])


def _alike(results: Sequence[Mapping], words: Sequence[str]) -> None:
    for result, own in zip(results, words, strict=True):
        if own != words[0]:
            one, other = system_label(results[0]["system"]), system_label(result["system"])
            raise VlmlabError(
                f"these are not of one protocol: {one}, {words[0]}, and {other}, {own}; make a comparison of each kind"
            )
