"""One training loop for every system: what differs stands in the system's file (`loss`, `optimizer`, `epochs`).

The loop can be watched (`on_step`), stopped by the user with what was learned kept (`should_stop`), and resumed from a
checkpoint: a run that was stopped or killed and resumed ends with the same bits as one that never was.

Dimensions: N support images, B batch, V views, e joint width.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import math
import pickle
import time
from collections.abc import Callable, Generator
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vlmlab.clock import Clock
from vlmlab.datasets.captions import CaptionSet
from vlmlab.datasets.multi_task import JointSet
from vlmlab.datasets.truth import Truth
from vlmlab.devices import sent
from vlmlab.errors import ForeignCheckpoint, VlmlabError
from vlmlab.features.bank import FeatureBank, as_evaluated, on_device
from vlmlab.features.decoding import Chunk, Cropped, prepared
from vlmlab.files import write_atomically
from vlmlab.geometry import Frame
from vlmlab.learning.memory import PeakMemory
from vlmlab.methods.dense.dense import Dense
from vlmlab.methods.method import Batch, Method
from vlmlab.randomness import LocalRandom
from vlmlab.watch import told

SAVE_EVERY = 30.0  # seconds between checkpoints: what a kill can cost
MOST_TOLD = 2**28  # bytes of ground truth that stay in memory, so that it is not drawn or read again at every epoch
LOOK_EVERY = 32  # steps between looks at the losses on a GPU, which would have to be waited for at every step


@dataclasses.dataclass
class FitRecord:
    """What happened: the loss of every step, and what it cost.

    `seconds` by the clock, `cpu_seconds` of the processor (all threads together; what else the machine does is not in
    them) cover preparation and training, up to its last checkpoint also those of a call that is resumed. Frozen features,
    which all systems share, are not in them; what the system alone needs is, cached or not (see `Clock`). `peak_mb` (see
    `PeakMemory`) is of this call alone; `stopped` says that the user ended it before the last of `steps`.
    """

    losses: list[float]
    steps: int
    stopped: bool
    seconds: float
    cpu_seconds: float
    peak_mb: float


def fit(
    method: Method,
    task,
    on_step: Callable[[int, int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | str | None = None,
    bank: FeatureBank | None = None,
    views: int = 0,
) -> FitRecord:
    """Prepare `method` for `task` and, if it learns, train it on the task's support images.

    A system that learns in stages (MVLPT: source tasks, then the target) has the whole recipe in each, unless its epochs or
    its optimiser look at `method.stage`; steps and losses count through.

    Random numbers come from `task.seed` alone (see `LocalRandom`): the same call gives the same result, whatever else the
    process computes meanwhile. On a GPU the forward pass is in bfloat16 (autocast), on a CPU in float32.

    Args:
        on_step: called after every step with the steps done, the steps in all and the loss of the last. On a GPU it makes
            the processor wait for every step; without it, losses are read (and found finite) every `LOOK_EVERY` steps.
        should_stop: asked before every step; once it says True, training ends and the method is ready for use.
        checkpoint: file to resume from if it exists, and to write to; it holds the method's parameters, optimiser,
            schedule and random generator.
        bank: the cache of frozen image features; one in memory if None.
        views: random crops per image, shown in turn epoch by epoch (encoded once, for a system that eats features);
            0 shows every image as in evaluation.

    Raises:
        VlmlabError: the loss is no longer finite.
        ForeignCheckpoint: the checkpoint belongs to another run, or is none.
    """
    bank = bank or FeatureBank(method.backbone, disk=False)
    method.bank = bank
    random = LocalRandom(task.seed)
    with PeakMemory() as memory, Clock() as clock:
        with random:
            method.prepare(task)
        losses, steps, stopped = [], 0, False
        if next(method.parameters(), None) is not None:
            run = _Run(method, task, bank, views, clock, random)
            try:
                stopped = run.train(on_step, should_stop, Path(checkpoint) if checkpoint else None)
            finally:
                for stage in run.stages:
                    stage.close()
            losses, steps = run.losses, run.steps
        with random:
            method.finish(task)
    seconds, cpu_seconds = clock.read()
    return FitRecord(losses, steps, stopped, round(seconds, 3), round(cpu_seconds, 3), memory.peak_mb)


class _Stage:
    """One image set that is learned from, and its batches."""

    def __init__(self, method: Method, pictures, seed: int, bank: FeatureBank, views: int) -> None:
        if not len(pictures):
            raise VlmlabError(f"{method.info.key} learns from images; ask for at least one shot")
        if views and isinstance(method, Dense):
            raise VlmlabError(
                f"{method.info.key} learns from {method.grounded}, which are not cropped with the images; use views=0"
            )
        self.method, self.pictures, self.seed, self.views = method, pictures, seed, views
        device = method.backbone.device
        self.labels = pictures.labels.to(device)
        self.tasks = pictures.tasks.to(device) if isinstance(pictures, JointSet) else None
        # A batch larger than the support set is the whole set; otherwise an incomplete last batch is left out, as in
        # the field's code.
        self.batch_size = min(method.batch_size, len(pictures))
        self.batches = len(pictures) // self.batch_size
        method.batches = self.batches
        self.steps = method.epochs * self.batches
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}  # of the epoch that is under way
        self._images: Generator[NDArray] | None = (
            None  # of the steps from `_next` on, decoded ahead where that is worth it
        )
        self._next = 0
        self._kept: dict[int, tuple[Truth | None, str | None]] = {}  # ground truth and caption, by position
        self._room = MOST_TOLD
        self.features: Tensor | None = None  # [V, N, e], or [1, N, e] without views
        if method.eats == "features":
            kept = bank.views(pictures, views, seed) if views else bank.features(pictures)[None]
            self.features = kept.to(device)

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The positions of all images in an epoch's order, on the CPU and on the device, whither they go once per epoch."""
        if epoch not in self._orders:
            drawing = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            index = torch.randperm(len(self.pictures), generator=drawing)
            self._orders = {epoch: (index, sent(index, self.labels.device))}
        return self._orders[epoch]

    def batch(self, step: int) -> Batch:
        """The batch of one step; it follows from the seed and the step, so a resumed run sees the same."""
        epoch, place = divmod(step, self.batches)
        own = slice(place * self.batch_size, (place + 1) * self.batch_size)
        index, there = (order[own] for order in self._order(epoch))
        batch = Batch(labels=self.labels[there], index=index, tasks=None if self.tasks is None else self.tasks[there])
        if isinstance(self.pictures, CaptionSet):
            return batch  # the system has read its captions, and knows them by their positions
        if isinstance(self.method, Dense):
            return self._dense(batch, index.tolist())
        if self.features is not None:
            batch.features = self.features[epoch % self.views if self.views else 0][there]
        else:
            batch.images = on_device(self.method.backbone, self._decoded(step))
            batch.cropped = self._crops
        return batch

    @property
    def _crops(self) -> bool:
        """Whether batches show random crops: those that a system sees itself, and not as features."""
        return bool(self.views) and self.method.eats == "images"

    def _decoded(self, step: int) -> NDArray:
        """The images of a step; those of the steps after it are decoded meanwhile."""
        if self._images is None or step != self._next:
            self.close()
            self._images = prepared(self.pictures, [self._chunk(s) for s in range(step, self.steps)])
        self._next = step + 1
        return next(self._images)

    def _chunk(self, step: int) -> Chunk:
        """Which images a step shows, and what is done to them."""
        epoch, place = divmod(step, self.batches)
        positions = self._order(epoch)[0][place * self.batch_size : (place + 1) * self.batch_size].numpy()
        backbone = self.method.backbone
        recipe = Cropped(backbone.image_size, self.seed, epoch % self.views) if self._crops else as_evaluated(backbone)
        return positions, recipe

    def close(self) -> None:
        """End the decoding ahead."""
        if self._images is not None:
            self._images.close()
            self._images = None

    def _dense(self, batch: Batch, positions: list[int]) -> Batch:
        """With the ground truth that the setup grants, in pixels of the batch's images: those of the network's input, or of the
        images themselves for a system that eats regions."""
        method, pictures = self.method, self.pictures
        device = method.backbone.device
        frames: list[Frame | None] = [None] * len(positions)
        if method.eats != "regions":
            batch.images, frames = method.framed([pictures.images(i) for i in positions])
        said = [self._told(i, frame) for i, frame in zip(positions, frames, strict=True)]
        if pictures.dense:
            batch.truths = [truth.to(device) for truth, _ in said]
            if method.eats != "regions" and all(truth.semantic is not None for truth in batch.truths):
                batch.masks = torch.stack([truth.semantic for truth in batch.truths]).long()
        batch.captions = [caption for _, caption in said] if pictures.captioned else None
        return batch

    def _told(self, i: int, frame: Frame | None) -> tuple[Truth | None, str | None]:
        """What is granted of image `i`, in its `frame` if there is one, and its caption; what has been read stays in memory, as far as
        `MOST_TOLD` goes."""
        if i in self._kept:
            return self._kept[i]
        truth = self.pictures.truth(i) if self.pictures.dense else None
        if truth is not None and frame is not None:
            truth = frame.truth(truth)
        found = truth, self.pictures.caption(i) if self.pictures.captioned else None
        parts = (truth.boxes, truth.labels, truth.instances, truth.semantic) if truth is not None else ()
        size = sum(part.numel() * part.element_size() for part in parts if part is not None)
        if size <= self._room:
            self._room -= size
            self._kept[i] = found
        return found


class _Run:
    """The state of one training run: everything that a checkpoint must hold."""

    def __init__(self, method: Method, task, bank: FeatureBank, views: int, clock: Clock, random: LocalRandom) -> None:
        self.method, self.task, self.views, self.clock, self.random = method, task, views, clock, random
        self.stages: list[_Stage] = []
        with random:
            for number, pictures in enumerate(method.stages(task)):
                method.stage = number
                self.stages.append(_Stage(method, pictures, task.seed, bank, views))
        self.steps = sum(stage.steps for stage in self.stages)
        self.losses: list[float] = []
        self.unread: list[Tensor] = []  # losses of the last steps, 0-d, still on the device
        self._begin(self.stages[0])

    @property
    def done(self) -> int:
        """How many steps were made."""
        return len(self.losses) + len(self.unread)

    def train(self, on_step, should_stop, checkpoint: Path | None) -> bool:
        """Steps until the last one, or until the user stops it; returns whether the user did."""
        if checkpoint and checkpoint.exists():
            self._restore(checkpoint)
        device = torch.device(self.method.backbone.device).type
        at_once = 1 if on_step or device == "cpu" else LOOK_EVERY
        saved = time.monotonic()
        bar = tqdm(total=self.steps, initial=self.done, desc=self.method.info.key, leave=False, disable=None)
        with bar:
            while self.done < self.steps:
                if should_stop and should_stop():
                    break
                told("learning, step", self.done, self.steps)
                stage, step = self._at(self.done)
                if step == 0:
                    self._begin(stage)
                self.optimizer.zero_grad(set_to_none=True)
                # Around what may draw, and not around what the caller is told: its own random numbers are not ours.
                with self.random, torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                    loss = self.method.loss(stage.batch(step))
                loss.backward()
                with self.random:
                    self.method.before_step()
                self.optimizer.step()
                self.schedule.step()
                self.unread.append(loss.detach())
                if len(self.unread) >= at_once:
                    self._read()
                    bar.set_postfix(loss=f"{self.losses[-1]:.3f}", refresh=False)
                bar.update()
                if on_step:
                    on_step(self.done, self.steps, self.losses[-1])
                if checkpoint and time.monotonic() - saved > SAVE_EVERY:
                    self._save(checkpoint)
                    saved = time.monotonic()
        self._read()
        if checkpoint:
            self._save(checkpoint)
        return self.done < self.steps

    def _at(self, step: int) -> tuple[_Stage, int]:
        """The stage of a step of the run, and its place in there."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(step)

    def _begin(self, stage: _Stage) -> None:
        """Every stage has an optimiser and a schedule of its own."""
        self.method.stage, self.method.batches = self.stages.index(stage), stage.batches
        self.optimizer, self.schedule = self.method.optimizer(stage.steps)

    def _read(self) -> None:
        """Take the losses of the last steps from the device; raises `VlmlabError` for the first that is not finite."""
        if not self.unread:
            return
        values = torch.stack([loss.reshape(()) for loss in self.unread]).tolist()
        self.unread.clear()
        for value in values:
            if not math.isfinite(value):
                raise VlmlabError(
                    f"{self.method.info.key} diverged: the loss of step {len(self.losses) + 1} is {value}; "
                    "try a smaller learning rate (--set lr=...)"
                )
            self.losses.append(value)

    @functools.cached_property
    def _annotations(self) -> list[str]:
        """Of a system that learns from boxes, masks or captions, what these are; read once per run."""
        dense = isinstance(self.method, Dense)
        return [stage.pictures.annotations_fingerprint() for stage in self.stages] if dense else []

    def _identity(self) -> str:
        """Hash of what must be equal for a checkpoint to belong to this run."""
        labels = b"".join(stage.labels.cpu().numpy().tobytes() for stage in self.stages)
        facts = {
            "system": self.method.info.key,
            "backbone": self.method.backbone.fingerprint(),
            "config": dataclasses.asdict(self.method.config),
            "pictures": [stage.pictures.fingerprint() for stage in self.stages],
            "labels": hashlib.sha256(labels).hexdigest(),
            "annotations": self._annotations,
            "classes": list(self.task.classes),
            "templates": list(self.task.templates),
            "seed": self.task.seed,
            "views": self.views,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _save(self, path: Path) -> None:
        self._read()  # what has diverged is not saved
        on_gpu = torch.device(self.method.backbone.device).type == "cuda"
        state = {
            "identity": self._identity(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": self.losses,
            "seconds": self.clock.read(),
            "generator": self.random.generator().get_state(),
            "gpu_generator": self.random.generator(self.method.backbone.device).get_state() if on_gpu else None,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def _restore(self, path: Path) -> None:
        device = self.method.backbone.device
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise ForeignCheckpoint(
                f"{path} is not a checkpoint that vlmlab wrote; delete it to begin again"
            ) from error
        if not isinstance(state, dict) or state.get("identity") != self._identity():
            raise ForeignCheckpoint(
                f"the checkpoint {path} belongs to another run (other images, annotations, settings or weights); delete it or name another file"
            )
        self.losses = list(state["losses"])
        self.clock.add(*state["seconds"])
        self._begin(self._at(max(0, self.done - 1))[0])
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random.generator().set_state(state["generator"])
        if state["gpu_generator"] is not None and torch.device(device).type == "cuda":
            self.random.generator(device).set_state(state["gpu_generator"])
