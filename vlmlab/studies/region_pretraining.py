"""RO-ViT's recipe at equal budget: two short pretraining runs of one tower, and the detector on the better of them.

    python -m vlmlab.studies.region_pretraining           both arms, three seeds, then the detector: about half an hour of one core
    python -m vlmlab.studies.region_pretraining --list    what is there, and what is open

| arm | positions of the patches | contrast of images and captions |
|---|---|---|
| `plain` | those of the whole grid | softmax, as CLIP's |
| `ro_vit` | a random crop of them | focal |

Both begin with micro-vit's image tower and see the same images with the same captions in the same order: `tableau-many`, 2,400
scenes, `EPOCHS` times. After every epoch it is measured how many of the true boxes of the validation images the tower names
right among all 47 names, by the mean of its tokens in the box. The arm that names more, over the seeds and over base and new classes
alike, carries the detector; that one alone meets the test images. The detector's head has as many steps as `ro_vit` has on
`tableau`.

What is measured is written to data/measured/ro_vit.csv at once, and a run that was stopped goes on from a checkpoint in
the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vlmlab.datasets import Task
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, data_path, read_lines, write_lines
from vlmlab.learning.dense import AT_ONCE
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import FitRecord, fit
from vlmlab.methods.detection.ro_vit import ROViT
from vlmlab.methods.method import Batch
from vlmlab.studies.run import dataset_for, shared_bank, some
from vlmlab.studies.table import spread

FILE = "ro_vit.csv"
ARMS: dict[str, dict[str, str]] = {
    "plain": {"positions": "whole", "contrast": "softmax"},
    "ro_vit": {"positions": "cropped", "contrast": "focal"},
}
SEEDS = (1, 2, 3)
BACKBONE, DATASET = "micro-vit", "tableau-many"
EPOCHS, BATCH = 5, 96
HEAD_EPOCHS = 2  # of 2,400 images: as many steps as eight of tableau's 600
TESTED = 235  # test images, five of each class
VALIDATION, TEST = "validation", "test"
COLUMNS = (
    "arm", "seed", "epoch", "images_seen", "measured_on", "images", "named_base", "named_new", "ap50_base", "ap50_new", "minutes"
)  # fmt: skip
"""Of the file. named_*: percent of the true boxes that the tower names right; ap50_*: of the detector; minutes: of the processor,
for learning, in all, where a run ends."""

Row = dict[str, str]


@torch.no_grad()
def named_right(method: ROViT, images, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """{"named_<group>": percent of the true boxes of its classes that the tower names right, among all names}."""
    count = len(method.classes)
    objects, right = torch.zeros(count), torch.zeros(count)
    for start in range(0, len(images), AT_ONCE):
        at = range(start, min(start + AT_ONCE, len(images)))
        pixels, frames = method.framed([images.images(i) for i in at])
        truths = [frame.truth(images.truth(i)) for i, frame in zip(at, frames, strict=True)]
        scores = method.teacher_scores(Batch(images=pixels), [truth.boxes.to(pixels.device) for truth in truths])
        labels = torch.cat([truth.labels for truth in truths])
        said = torch.cat([own.argmax(-1) for own in scores]).cpu()
        objects += labels.bincount(minlength=count)
        right += labels[said == labels].bincount(minlength=count)
    return {f"named_{group}": 100 * _share(right, objects, members) for group, members in groups.items()}


def _share(right: Tensor, objects: Tensor, members: Sequence[int]) -> float:
    chosen = list(members)
    return float(right[chosen].sum() / objects[chosen].sum().clamp_min(1))


class Study:
    """The study of one task, with its lines in the file `path`.

    Args:
        task: called with a seed, gives the task that is learned and measured.
        settings: of RO-ViT, those of all runs; an arm adds its own.
        test: how many test images the detector is measured on.
    """

    def __init__(self, task: Callable, bank, path: Path, settings: Mapping, test: int = TESTED) -> None:
        self.task, self.bank, self.path, self.settings, self.test = task, bank, path, dict(settings), test

    def run(self, seeds: Sequence[int] = SEEDS, echo: Callable = print, stop: Callable[[], bool] | None = None) -> bool:
        """What the file lacks; returns whether it is complete. `stop` is asked before every step."""
        for seed in seeds:
            for arm in ARMS:
                if not self.pretrained(arm, seed):
                    echo(f"{arm}, seed {seed}: pretraining")
                    if not self.pretrain(arm, seed, stop):
                        return False
        arm = self.better(seeds)
        for seed in seeds:
            if not any(row["measured_on"] == TEST for row in self.of(arm, seed)):
                echo(f"{arm}, seed {seed}: the detector")
                if not self.detector(arm, seed, stop):
                    return False
        return True

    def better(self, seeds: Sequence[int]) -> str:
        """The arm whose tower names more true boxes of validation images, the mean of both groups over the seeds."""
        return max(ARMS, key=lambda arm: spread([self.named(arm, seed) for seed in seeds])[0])

    def named(self, arm: str, seed: int) -> float:
        """The mean of both groups after the last epoch of pretraining."""
        last = [row for row in self.of(arm, seed) if row["measured_on"] == VALIDATION][-1]
        return (float(last["named_base"]) + float(last["named_new"])) / 2

    def pretrained(self, arm: str, seed: int) -> bool:
        """Whether all of an arm's pretraining has been measured."""
        epochs = {int(row["epoch"]) for row in self.of(arm, seed) if row["measured_on"] == VALIDATION}
        return self.settings["pretrain_epochs"] in epochs

    def pretrain(self, arm: str, seed: int, stop: Callable[[], bool] | None = None) -> bool:
        """Pretraining with a measurement before it and after every epoch; False if it was stopped."""
        method, task = self.system(arm, seed)
        epochs = self.settings["pretrain_epochs"]
        groups, there = {"base": task.base, "new": task.new}, {int(row["epoch"]) for row in self.of(arm, seed)}
        if not there:  # what lies there belongs to another file, and is behind what would be measured
            self.checkpoint(arm, seed).unlink(missing_ok=True)
        done = [0]

        def look(epoch: int, minutes: str = "") -> None:
            if epoch not in there:
                values = named_right(method, task.tuning, groups)
                seen = epoch * method.batches * min(self.settings["pretrain_batch"], len(task.train))
                self.add(arm, seed, epoch, seen, VALIDATION, len(task.tuning), values, minutes)
                there.add(epoch)

        def on_step(step: int, steps: int, loss: float) -> None:
            done[0] = step
            epoch, rest = divmod(step, method.batches)
            if not rest and method.stage == 0 and epoch < epochs:
                look(epoch)

        def ended() -> bool:
            if method.stage == 0 and 0 not in there:
                look(0)
            return done[0] >= epochs * method.batches or bool(stop and stop())

        record = self.learn(method, task, arm, seed, on_step, ended)
        if len(record.losses) < epochs * method.batches:
            return False
        look(epochs, f"{record.cpu_seconds / 60:.2f}")
        return True

    def detector(self, arm: str, seed: int, stop: Callable[[], bool] | None = None) -> bool:
        """The head on the pretrained tower, and its measurement on test images; False if it was stopped."""
        method, task = self.system(arm, seed)
        record = self.learn(method, task, arm, seed, None, stop)
        if record.stopped:
            return False
        groups, images = {"base": task.base, "new": task.new}, some(task.test, self.test)
        found = evaluate(method, images, self.bank, seed, groups)
        values = {f"named_{g}": found[f"teacher_{g}"] for g in groups} | {
            f"ap50_{g}": found[f"ap50_{g}"] for g in groups
        }
        last = self.of(arm, seed)[-1]
        epoch, seen = int(last["epoch"]), int(last["images_seen"])
        self.add(arm, seed, epoch, seen, TEST, len(images), values, f"{record.cpu_seconds / 60:.2f}")
        self.checkpoint(arm, seed).unlink(missing_ok=True)
        return True

    def system(self, arm: str, seed: int) -> tuple[ROViT, Task]:
        """(RO-ViT with the settings of an arm, its task)."""
        backbone = self.bank.backbone
        return ROViT(backbone, ROViT.configure(backbone, **self.settings, **ARMS[arm])), self.task(seed)

    def learn(self, method: ROViT, task: Task, arm: str, seed: int, on_step, should_stop) -> FitRecord:
        checkpoint = self.checkpoint(arm, seed)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        seen = task.seen_by(method.info.setup)
        return fit(method, seen, on_step, should_stop, checkpoint, self.bank)

    def checkpoint(self, arm: str, seed: int) -> Path:
        """Where a run that was stopped goes on."""
        return cache_path("pretraining", "ro_vit", f"{arm}-{seed}.pt")

    # --- the file ----------------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """The lines that are there; errors as `VlmlabError`."""
        return read_lines(self.path, COLUMNS)

    def of(self, arm: str, seed: int) -> list[Row]:
        """The lines of one run, in the order in which they were measured."""
        return [row for row in self.rows() if row["arm"] == arm and int(row["seed"]) == seed]

    def add(
        self, arm: str, seed: int, epoch: int, seen: int, where: str, images: int, values: Mapping, minutes: str
    ) -> None:
        """One more line."""
        numbers = {name: f"{value:.2f}" for name, value in values.items()}
        row = {"arm": arm, "seed": seed, "epoch": epoch, "images_seen": seen, "measured_on": where, "images": images}
        write_lines(self.path, COLUMNS, [*self.rows(), row | numbers | {"minutes": minutes}])

    def told(self, seeds: Sequence[int] = SEEDS) -> list[str]:
        """What came out, in sentences."""
        if not all(self.pretrained(arm, seed) for arm in ARMS for seed in seeds):
            return ["not all of it has been measured yet"]
        differences = [self.named("ro_vit", seed) - self.named("plain", seed) for seed in seeds]
        mean, deviation = spread(differences)
        lines = [
            f"true boxes of validation images named right, {arm}: "
            f"{' '.join(f'{self.named(arm, seed):.1f}' for seed in seeds)} %"
            for arm in ARMS
        ]
        return [*lines, f"ro_vit against plain: {mean:+.2f} points, standard deviation {deviation:.2f} over the seeds"]


def embedded(path: Path) -> Study:
    """The study that is committed."""
    bank = shared_bank(BACKBONE, "cpu")
    settings = {"pretrain_epochs": EPOCHS, "pretrain_batch": BATCH, "epochs": HEAD_EPOCHS}
    return Study(lambda seed: Task(bank.backbone, dataset_for(bank, DATASET), 0, seed), bank, path, settings)


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        "python -m vlmlab.studies.region_pretraining", description="RO-ViT's two arms, resumable"
    )
    parser.add_argument("--out", type=Path, default=data_path("measured") / FILE, help="the file of lines")
    parser.add_argument("--list", action="store_true", help="say what is there, run nothing")
    asked = parser.parse_args(given)
    try:
        study = embedded(asked.out)
        if asked.list:
            for arm in ARMS:
                for seed in SEEDS:
                    print(f"{arm}, seed {seed}: {'pretrained' if study.pretrained(arm, seed) else 'open'}")
        else:
            study.run()
        print("\n".join(study.told()))
    except VlmlabError as error:
        print(f"vlmlab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
