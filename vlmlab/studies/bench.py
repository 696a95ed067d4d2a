"""What the exact speed-ups are worth on this machine.

Every ratio has both of its sides measured in the same run, one after the other, with the threads that PyTorch has.

Dimensions: C classes, M context vectors, L = 77 tokens, d text width, e joint width, B batch.
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import open_clip
import psutil
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vlmlab.backbones import load_backbone
from vlmlab.backbones.photo import NETWORK
from vlmlab.backbones.text_tower import TextTower, open_text_tower
from vlmlab.datasets import Task, load_dataset
from vlmlab.datasets.task import DENSE
from vlmlab.errors import VlmlabError, unknown
from vlmlab.features.bank import FeatureBank, evaluated
from vlmlab.heap import keep_freed_memory
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.cocoop import CoCoOp
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.prompts import Prompts, assemble, placeholders
from vlmlab.randomness import LocalRandom
from vlmlab.registry import registry
from vlmlab.studies.bench_dense import cached_regions, cached_tokens
from vlmlab.studies.bench_device import images, on_device
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.measurement import Measurement, seconds_of
from vlmlab.studies.run import adapt
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import OBJECTS
from vlmlab.world.painter import render
from vlmlab.world.scene import sample_scene

CLASSES, CONTEXT, BATCH = 100, 16, 32  # the step that is measured: Caltech-101's size, CoOp's defaults
REPORT_LIMIT_MB = 3 * 1024
PICTURES = 4  # of a CoCoOp step
FIT_SHOTS, FIT_LIMIT = 16, 60  # shots per class; seconds that a fit may take on two cores
FITTED_ON = {
    "hierarchical classification": "vehicles",
    "classification": "digits",
    "multi-label classification": "tableau",
    "segmentation": "tableau",
    "detection": "tableau",
}
"""Task that a system solves -> the dataset of its fit, with about as many classes as digits where there is such a one; the first
task counts that it has, because a class tree comes only with some sets."""


def bench(
    names: Sequence[str] = (), on_start: Callable[[str], None] | None = None, device: str = "cpu"
) -> dict[str, dict]:
    """Measurements by name: {"value", "unit", "baseline", "ratio", "note"}; all of MEASUREMENTS if none is named.

    "fits" measures a fit of every system, "fit.coop" that of CoOp alone. Another device than the CPU has measurements of its
    own (see `bench_device`), which are all made.
    Raises `VlmlabError` for an unknown name, or a device that is not here, before anything is measured.
    """
    if device != "cpu":
        if names:
            raise VlmlabError(f"the measurements on {device} have no names to choose from; leave out {names[0]}")
        return {name: _facts(one) for name, one in on_device(device, on_start).items()}
    known = MEASUREMENTS | LONG | {f"fit.{key}": functools.partial(_fit, key) for key in registry()}
    for name in names:
        if name not in known:
            raise unknown("measurement", name, known if name.startswith("fit.") else MEASUREMENTS | LONG)
    measured = {}
    for name in names or MEASUREMENTS:
        if on_start:
            on_start(f"measuring {name}")
        found = known[name]()
        for one, measurement in found.items() if isinstance(found, dict) else [(name, found)]:
            measured[one] = _facts(measurement)
    return measured


def _facts(measurement: Measurement) -> dict:
    """A measurement with numbers of four digits."""
    facts = dataclasses.asdict(measurement)
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in facts.items()}


# --- one step of CoOp, on a text tower of the size of ViT-B-32's --------------------------------------------------------


@dataclasses.dataclass
class _Step:
    """What a step of CoOp needs beside the context: the tower, the prompts' frozen parts, a batch."""

    text: TextTower
    prompts: Prompts
    features: Tensor  # unit, [B, e]
    labels: Tensor  # [B]

    def gradient(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Forward and backward: the gradient [M, d] of the loss at a fixed context, classes encoded by `encode`."""
        context = 0.02 * torch.randn(CONTEXT, self.text.width, generator=torch.Generator().manual_seed(0))
        context.requires_grad_()
        w = F.normalize(encode(context), dim=-1)
        F.cross_entropy(100 * self.features @ w.T, self.labels).backward()
        return context.grad

    def shared(self, context: Tensor) -> Tensor:
        """Class features [C, e], the prefix encoded once."""
        return self.prompts.features(self.text, context)

    def full_length(self, context: Tensor) -> Tensor:
        """The same as the field's code has it."""
        return _full_length(self.text.text, self.prompts, context)


def _full_length(tower: nn.Module, p: Prompts, context: Tensor) -> Tensor:
    """Class features [C, e] of a context [M, d], every prompt at the full length of 77, by open_clip's own layers."""
    before = torch.cat([p.start, context]).expand(len(p.rest), -1, -1)
    length, width = tower.positional_embedding.shape
    padding = torch.zeros(len(p.rest), length - before.shape[1] - p.rest.shape[1], width)
    x = torch.cat([before, p.rest, padding], 1) + tower.positional_embedding
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
    return x[torch.arange(len(x)), p.end + before.shape[1]] @ tower.text_projection


@functools.lru_cache(maxsize=1)
def _step() -> _Step:
    with LocalRandom(0):
        # Random weights: the time and the equality of gradients do not depend on them, and nothing is downloaded.
        tower = open_clip.transformer.TextTransformer(width=512, heads=8, layers=12, output_dim=512)
        text = open_text_tower(tower.requires_grad_(False).eval(), open_clip.get_tokenizer("ViT-B-32"), "ViT-B-32")
        features = F.normalize(torch.randn(BATCH, 512), dim=-1)
        labels = torch.randint(CLASSES, (BATCH,))
    names = [*OBJECTS, *(c.name for domain in ("creatures", "vehicles", "food") for c in DOMAINS[domain].classes)]
    return _Step(text, assemble(text, names[:CLASSES], placeholders(CONTEXT)), features, labels)


def _shared_prefix() -> Measurement:
    step = _step()
    longest = int(step.prompts.names.max())
    shared = step.gradient(step.shared)  # also warms up
    value = seconds_of(lambda: step.gradient(step.shared), 3)
    full = []
    baseline = seconds_of(lambda: full.append(step.gradient(step.full_length)), 1)
    difference = float((shared - full[0]).abs().max() / full[0].abs().max())
    return Measurement(
        value,
        "s per step",
        baseline,
        baseline / value,
        f"CoOp step, {CLASSES} classes with names of up to {longest} tokens, M = {CONTEXT}, text tower of ViT-B-32: "
        f"prefix encoded once against 77 tokens per class; gradients differ by {difference:.1e} of the largest",
    )


def _matmul_share() -> Measurement:
    step = _step()
    counter = FlopCounterMode(display=False)
    with counter:
        step.gradient(step.shared)
    operations = counter.get_total_flops()
    reached = operations / seconds_of(lambda: step.gradient(step.shared), 3) / 1e9
    a = torch.randn(1024, 1024)
    a @ a
    peak = 2 * 1024**3 / min(seconds_of(lambda: a @ a, 1) for _ in range(20)) / 1e9
    return Measurement(
        reached,
        "GFLOP/s",
        peak,
        reached / peak,
        f"products of a CoOp step ({operations / 1e9:.0f} GFLOP) against a float32 product of 1024 x 1024 matrices, "
        f"{torch.get_num_threads()} threads",
    )


# --- micro-vit -----------------------------------------------------------------------------------------------------------


def _digits() -> tuple[CoOp, Task]:
    backbone = load_backbone("micro-vit")
    return CoOp(backbone), Task(backbone, load_dataset("digits"), shots=16, seed=0)


def _cached_epoch() -> Measurement:
    method, task = _digits()
    method.prepare(task)
    bank = FeatureBank(method.backbone, disk=False)
    features, labels = bank.features(task.support), task.support.labels
    batches = torch.arange(len(labels)).split(BATCH)

    def epoch(cached: bool) -> None:
        for index in batches:
            batch = Batch(labels=labels[index])
            if cached:
                batch.features = features[index]
            else:
                batch.images = evaluated(method.backbone, task.support, index.tolist())
            method.loss(batch).backward()

    epoch(True)
    value, baseline = seconds_of(lambda: epoch(True), 5), seconds_of(lambda: epoch(False), 3)
    note = f"CoOp on digits with micro-vit, {len(labels)} images: features kept against images encoded every epoch"
    return Measurement(value, "s per epoch", baseline, baseline / value, note)


def _coop_fit() -> Measurement:
    method, task = _digits()
    bank = FeatureBank(method.backbone, disk=False)
    record = fit(method, task, bank=bank)
    note = f"CoOp, 16 shots of 10 digits, micro-vit: {record.steps} steps, encoding the images included"
    return Measurement(record.seconds, "s", None, None, note)


def _cocoop_step() -> Measurement:
    """A batch of images at once against CoCoOp's release, which encodes all prompts again for one image at a time."""
    backbone = load_backbone("micro-vit")
    task = Task(backbone, load_dataset("objects"), shots=1, seed=0)
    method = CoCoOp(backbone)
    method.prepare(task)
    f = F.normalize(torch.randn(PICTURES, backbone.embed_dim, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.arange(PICTURES)
    learned = [method.context, *method.meta_net.parameters()]

    def gradient(class_features: Callable[[Tensor], Tensor]) -> Tensor:
        logits = backbone.logit_scale * torch.einsum("be,bce->bc", f, class_features(f))
        return torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(logits, labels), learned)])

    def one_at_a_time(f: Tensor) -> Tensor:
        shifted = method.context + method.meta_net(f)[:, None]
        rows = [_full_length(backbone.text.text, method.prompts, context) for context in shifted]
        return F.normalize(torch.stack(rows), dim=-1)

    together, alone = gradient(method.class_features), gradient(one_at_a_time)  # also warm up
    difference = float((together - alone).abs().max() / alone.abs().max())
    value, baseline = (
        seconds_of(lambda: gradient(method.class_features), 3),
        seconds_of(lambda: gradient(one_at_a_time), 1),
    )
    return Measurement(
        value,
        "s per step",
        baseline,
        baseline / value,
        f"CoCoOp step, {PICTURES} images and {len(task.classes)} classes, micro-vit: all images at once with a shared "
        f"prefix each against 77 tokens per class, image by image; gradients differ by {difference:.1e} of the largest",
    )


# --- photo ---------------------------------------------------------------------------------------------------------------


def image_step(keep: bool) -> float:
    """Seconds of a pixel prompt's step through an image tower of photo's size; `keep` freed memory, or return it.

    To be called in a process of its own: what was told to the C library cannot be taken back.
    """
    if keep:
        keep_freed_memory()
    tower = timm.create_model(NETWORK).eval().requires_grad_(False)
    images = torch.zeros(BATCH, 3, 224, 224, requires_grad=True)
    tower(images).sum().backward()
    return seconds_of(lambda: tower(images).sum().backward(), 3)


def _freed_memory() -> Measurement:
    processes = get_context("spawn")
    with processes.Pool(1) as kept, processes.Pool(1) as returned:
        value, baseline = kept.apply(image_step, (True,)), returned.apply(image_step, (False,))
    note = f"a pixel prompt's step on {BATCH} images through photo's image tower: freed memory kept against returned"
    return Measurement(value, "s per step", baseline, baseline / value, note)


# --- every system --------------------------------------------------------------------------------------------------------


def fitted_on(key: str) -> str:
    """The dataset of a system's fit."""
    return next(dataset for task, dataset in FITTED_ON.items() if task in registry()[key].tasks)


def _fit(key: str) -> dict[str, Measurement]:
    """Seconds and memory of one system's fit with its settings for embedded backbones; features of images are cached."""
    name = fitted_on(key)
    shots = 0 if registry()[key].setup in DENSE else FIT_SHOTS
    adapted = adapt(Experiment(key, name, "micro-vit", shots=shots, seed=0))
    record, learned = adapted.record, adapted.method.trainable_parameters
    note = f"{key} on {name}, {shots} shots, micro-vit: {record.steps} steps, {learned:,} numbers learned"
    limit, seconds, memory = float(FIT_LIMIT), max(record.seconds, 1e-3), record.peak_mb
    return {
        f"fit.{key}.seconds": Measurement(seconds, "s", limit, limit / seconds, f"{note}; baseline: the most allowed"),
        f"fit.{key}.memory": Measurement(memory, "MB", None, None, f"{note}; the whole process"),
    }


def _fits() -> dict[str, Measurement]:
    """All systems, after one fit that nobody counts (it loads libraries and the backbone)."""
    adapt(Experiment("coop", "digits", "micro-vit", shots=1, config=(("epochs", 1),)))
    return {name: facts for key in registry() for name, facts in _fit(key).items()}


# --- the world, the report ---------------------------------------------------------------------------------------------


def _world() -> Measurement:
    def paint(count: int) -> None:
        rng = np.random.default_rng(0)
        for _ in range(count):
            render(sample_scene(rng), 64)

    paint(20)
    rate = 300 / seconds_of(lambda: paint(300), 3)
    return Measurement(
        rate, "images/s", 500.0, rate / 500, "MicroWorld scenes of 64 x 64 on one core; baseline: wanted"
    )


def _report() -> Measurement:
    """The whole default report in a process of its own; the memory of all its processes together, twice a second."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vlmlab.cli", "report", "--out", str(Path(folder) / "report")]
        began, peak = time.perf_counter(), 0.0
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            while process.poll() is None:
                peak = max(peak, _memory_mb(psutil.Process(process.pid)))
                time.sleep(0.5)
            seconds = time.perf_counter() - began
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").split("\n")
                raise VlmlabError(f"the report failed: {' '.join(lines[-3:]).strip()}")
    note = f"vlmlab report with its defaults took {seconds:.0f} s; baseline: the most it may need"
    return Measurement(peak, "MB", float(REPORT_LIMIT_MB), REPORT_LIMIT_MB / peak, note)


def _memory_mb(process: psutil.Process) -> float:
    """Memory of a process and of all that it started, in MiB.

    Pages that several of them share, such as PyTorch's libraries, count once where the system tells which they are
    (Linux's proportional set size), else once for each.
    """
    total = 0.0
    try:
        for one in [process, *process.children(recursive=True)]:
            try:
                used = one.memory_full_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended meanwhile, or is nobody's business
            total += getattr(used, "pss", used.rss)
    except psutil.NoSuchProcess:
        return 0.0
    return total / 2**20


Measured = Measurement | dict[str, Measurement]

MEASUREMENTS: dict[str, Callable[[], Measured]] = {
    "shared_prefix_step": _shared_prefix,
    "matmul_share": _matmul_share,
    "cached_epoch": _cached_epoch,
    "coop_fit": _coop_fit,
    "cocoop_step": _cocoop_step,
    "cached_regions": cached_regions,
    "cached_tokens": cached_tokens,
    "freed_memory": _freed_memory,
    "images": images,
    "world": _world,
    "report_memory": _report,
}

LONG: dict[str, Callable[[], Measured]] = {"fits": _fits}
"""Only measured when they are named: some minutes. One system alone is named fit.KEY, such as fit.coop."""
