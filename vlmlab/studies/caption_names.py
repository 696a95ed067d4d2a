"""OpenSeg by what its captions say: nothing, half of the names of an image, or all of them.

    python -m vlmlab.studies.caption_names           three fits with seed 11, some three minutes of one core
    python -m vlmlab.studies.caption_names --seed 1 --seed 2

`tableau`'s captions leave out many of the things that an image shows, where the paper also learns from narratives that say nearly
all. Three fits differ by that alone:

| captions | what they say |
|---|---|
| `none` | they are not read |
| `drawn` | what `tableau` says of an image |
| `all names` | the name of every thing and ground that it shows |

Measured on validation images, in percent; a line per fit goes to data/measured/openseg.csv at once, and what is there is not
fitted again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vlmlab.datasets import Dataset, ImageSet, Task
from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, read_lines, write_lines
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.methods.segmentation.openseg import OpenSeg
from vlmlab.studies.run import dataset_for, shared_bank

FILE = "openseg.csv"
CAPTIONS = ("none", "drawn", "all names")
SEED = 11
COLUMNS = (
    "captions",
    "seed",
    "names_said",
    "names_shown",
    "images",
    "miou_base",
    "miou_new",
    "harmonic_mean",
    "minutes",
)
"""Of the file. names_said, names_shown: of a training image, on average; images: validation images; minutes: of the processor."""


def all_names(images: ImageSet, classes: Sequence[str]) -> ImageSet:
    """The same images with captions that say every class that they show."""
    sentences = [", ".join(classes[c] for c in row.nonzero().flatten().tolist()) for row in images.labels]
    return images.captioned_by(sentences)


def measured(dataset: Dataset, bank, captions: str, seed: int, settings: Mapping | None = None) -> dict[str, object]:
    """A line of the file, of a dataset with stuff among its classes; `settings` are OpenSeg's."""
    if captions == "all names":
        dataset = dataclasses.replace(dataset, train=all_names(dataset.train, dataset.classes))
    own = dict(settings or {}) | ({"ground_weight": 0.0} if captions == "none" else {})
    method = OpenSeg(bank.backbone, OpenSeg.configure(bank.backbone, **own))
    task, train = Task(bank.backbone, dataset, 0, seed), dataset.train
    record = fit(method, task.seen_by(method.info.setup), bank=bank)
    found = evaluate(method, task.tuning, bank, seed, {"base": task.base, "new": task.new})
    told = said([train.caption(i) for i in range(len(train))], dataset.classes)
    return {
        "captions": captions,
        "seed": seed,
        "names_said": 0.0 if captions == "none" else round(float(told.sum(1).float().mean()), 2),
        "names_shown": round(float(train.labels.sum(1).float().mean()), 2),
        "images": len(task.tuning),
        **{name: round(found[name], 2) for name in ("miou_base", "miou_new", "harmonic_mean") if name in found},
        "minutes": round(record.cpu_seconds / 60, 2),
    }


def study(path: Path, seeds: Sequence[int], measure: Callable[[str, int], Mapping], echo: Callable = print) -> None:
    """Add the lines that the file `path` lacks; `measure(captions, seed)` gives one."""
    for seed in seeds:
        for captions in CAPTIONS:
            rows = read_lines(path, COLUMNS)
            if any(row["captions"] == captions and int(row["seed"]) == seed for row in rows):
                continue
            echo(f"captions: {captions}, seed {seed}")
            write_lines(path, COLUMNS, [*rows, measure(captions, seed)])


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        "python -m vlmlab.studies.caption_names", description="OpenSeg by what captions say"
    )
    parser.add_argument("--seed", action="append", type=int, help=f"of training; may be repeated; default: {SEED}")
    parser.add_argument("--out", type=Path, default=data_path("measured") / FILE, help="the file of lines")
    asked = parser.parse_args(given)
    try:
        read_lines(asked.out, COLUMNS)
        bank = shared_bank("micro-vit", "cpu")
        dataset = dataset_for(bank, "tableau", with_stuff=True)
        study(asked.out, asked.seed or [SEED], lambda captions, seed: measured(dataset, bank, captions, seed))
        for row in read_lines(asked.out, COLUMNS):
            print(
                f"captions {row['captions']:<10} seed {row['seed']:>3}: {row['names_said']} of {row['names_shown']} names said; "
                f"mIoU {row['miou_base']} base, {row['miou_new']} new"
            )
    except VlmlabError as error:
        print(f"vlmlab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
