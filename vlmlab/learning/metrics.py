"""The main metric of every kind of task: what one number stands for a result where there is room for one.

Imports nothing, so that tables and listings can ask without PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAIN = {
    "detection": "ap50",
    "segmentation": "miou",
    "multi-label classification": "map",
    "classification": "accuracy",
    "hierarchical classification": "accuracy",
}
"""Task -> its main metric, in percent. A result of a dense task may have those of simpler tasks, too: the first one counts."""


def main_metric(measured: Mapping[str, Any]) -> str:
    """The name of the main metric among the metrics of a result. Raises `KeyError` if there is none among them."""
    for name in MAIN.values():
        if name in measured:
            return name
    raise KeyError(f"no main metric among {', '.join(measured)}")


TITLES = {"ap50": "AP50", "miou": "mIoU", "map": "mAP", "accuracy": "accuracy"}
"""How a chart or a sentence calls a main metric."""


def of_group(measured: Mapping[str, Any], group: str) -> float | None:
    """The main metric on "base" or "new" classes, or their "harmonic_mean"; None if a result has none.

    A dense result has it as "ap50_new" or "miou_new", among all names at once; one of a base-to-new split as "new".
    """
    if group in measured:
        return measured[group]
    return next((measured[name] for main in MAIN.values() if (name := f"{main}_{group}") in measured), None)
