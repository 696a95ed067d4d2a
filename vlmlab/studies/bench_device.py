"""How fast a device is fed and what it reaches: `vlmlab bench images`, and `vlmlab bench --device cuda`.

On a GPU, where PyTorch returns before the work is done, a clock is read after a result was copied to the CPU.

Dimensions: n images of a chunk, S image side, e joint width.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP, SimpleTokenizer
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from vlmlab.backbones import load_backbone
from vlmlab.backbones.backbone import Backbone
from vlmlab.backbones.loading import device_of, precision_of
from vlmlab.datasets import Task, load_dataset
from vlmlab.datasets.image_set import FilePictures, ImageSet
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank, as_evaluated, encodable
from vlmlab.features.decoding import workers_for
from vlmlab.learning.fit import fit
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.randomness import LocalRandom
from vlmlab.studies.measurement import Measurement, seconds_of
from vlmlab.world.painter import render
from vlmlab.world.scene import sample_scene

FILES = {"cpu": 2048, "cuda": 16384}  # image files that are decoded and encoded
DRAWN, SIDE = 8, 400  # different images among them, and their side in pixels: about that of the field's photographs
AT_ONCE = {"cpu": 64, "cuda": 256}  # images of a chunk
SHOTS = 16
FIT: dict[str, int] = {}  # settings of the fit that is measured; CoOp's own
PRODUCT = 8192  # side of the matrices whose product stands for the peak of a GPU
ENCODER = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
"""ViT-B-16's image tower beside a small text tower: with random weights, on which no speed depends, it needs no network."""


def images() -> Measurement:
    """Images per second from JPEG files to features of micro-vit, against the encoder alone, on the CPU."""
    return _fed(load_backbone("micro-vit", "cpu"), "cpu")


def on_device(device: str, on_start: Callable[[str], None] | None = None) -> dict[str, Measurement]:
    """Everything that is measured on a GPU, by name.

    Raises `VlmlabError` if there is no such device here, or if it is the CPU.
    """
    target = device_of(device)
    if target.type != "cuda":
        raise VlmlabError("only a CUDA GPU has measurements of its own; leave --device out to measure this machine")
    name = torch.cuda.get_device_name(target)
    torch.cuda.reset_peak_memory_stats(target)
    found = {}
    for key, measure in {
        "gpu.fit": _fit,
        "gpu.encoder": _encoder,
        "gpu.images": _images,
        "gpu.memory": _memory,
    }.items():
        if on_start:
            on_start(f"measuring {key}")
        found[key] = measure(target)
        found[key].note = f"{name}: {found[key].note}"
    return found


def _fit(device: torch.device) -> Measurement:
    """CoOp's fit on digits, on the GPU and on this machine's CPU."""

    def seconds(device: torch.device | str) -> tuple[float, int]:
        backbone = load_backbone("micro-vit", str(device))
        task = Task(backbone, load_dataset("digits"), shots=SHOTS, seed=0)
        bank = FeatureBank(backbone, disk=False)
        fit(
            CoOp(backbone, CoOp.configure(backbone, **FIT | {"epochs": 1})), task, bank=bank
        )  # libraries are loaded, kernels chosen
        record = fit(CoOp(backbone, CoOp.configure(backbone, **FIT)), task, bank=bank)
        return record.seconds, record.steps

    (value, steps), (baseline, _) = seconds(device), seconds("cpu")
    note = f"CoOp, {SHOTS} shots of 10 digits, micro-vit, {steps} steps; baseline: on this machine's CPU"
    return Measurement(value, "s", baseline, baseline / max(value, 1e-3), note)


def _opened(device: torch.device) -> tuple[Backbone, float]:
    """The encoder of `ENCODER` in the device's own precision, and the operations that one image takes."""
    with LocalRandom(0):
        backbone = Backbone("random", CLIP(**ENCODER), SimpleTokenizer())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        backbone.encode_image(torch.zeros(1, 3, backbone.image_size, backbone.image_size))
    return backbone.to(device=device, dtype=precision_of("auto", device)), float(counter.get_total_flops())


@torch.no_grad()
def _rate(backbone: Backbone, at_once: int) -> float:
    """Images per second of the encoder alone: normalised images on its device, features copied to the CPU."""
    ready = torch.zeros(at_once, 3, backbone.image_size, backbone.image_size).to(backbone.device)
    backbone.encode_image(ready).cpu()
    return at_once / seconds_of(lambda: backbone.encode_image(ready).cpu(), 5)


def _encoder(device: torch.device) -> Measurement:
    """The share of its bfloat16 peak that the GPU reaches while it encodes; the peak is that of one large product."""
    backbone, operations = _opened(device)
    kind, at_once = backbone.dtype, AT_ONCE["cuda"]
    rate = _rate(backbone, at_once)
    a = torch.ones(PRODUCT, PRODUCT).to(device=device, dtype=kind)

    def product() -> None:
        for _ in range(10):
            b = a @ a
        b[0, 0].cpu()

    product()
    peak = 10 * 2 * PRODUCT**3 / seconds_of(product, 5) / 1e12
    reached = rate * operations / 1e12
    note = (
        f"ViT-B-16's image tower, {str(kind).removeprefix('torch.')}, {at_once} images at once: {rate:.0f} images/s of "
        f"{operations / 1e9:.1f} GFLOP; baseline: a product of {PRODUCT} x {PRODUCT} matrices"
    )
    return Measurement(reached, "TFLOP/s", peak, reached / peak, note)


def _images(device: torch.device) -> Measurement:
    return _fed(_opened(device)[0], "cuda")


def _fed(backbone: Backbone, kind: str) -> Measurement:
    """Images per second from JPEG files to features, once the first chunk is there, against the encoder's own speed."""
    count, at_once = FILES[kind], AT_ONCE[kind]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        pictures = _files(Path(folder), count)
        shown = encodable(backbone, pictures, at_once, as_evaluated(backbone), "measuring")
        began = time.perf_counter()
        with contextlib.closing(shown):
            backbone.encode_image(next(shown)).cpu()
            first = time.perf_counter()
            for chunk in shown:
                backbone.encode_image(chunk).cpu()
            value = (count - at_once) / (time.perf_counter() - first)
    own = _rate(backbone, at_once)
    workers = workers_for(count, count // at_once)
    note = (
        f"{count} JPEG files of {SIDE} x {SIDE} decoded by {workers or 'no'} worker{'s' * (workers != 1)} and encoded at "
        f"{backbone.image_size} x {backbone.image_size}, after {first - began:.1f} s until the first chunk; baseline: the "
        "encoder alone"
    )
    return Measurement(value, "images/s", own, value / own, note)


def _files(folder: Path, count: int) -> ImageSet:
    """`DRAWN` scenes as JPEG files, under `count` names."""
    rng, files = np.random.default_rng(0), []
    for i in range(DRAWN):
        files.append(folder / f"{i}.jpg")
        Image.fromarray(render(sample_scene(rng), SIDE).pixels).save(files[-1], quality=90)
    return ImageSet(FilePictures([files[i % DRAWN] for i in range(count)]), [0] * count, [str(i) for i in range(count)])


def _memory(device: torch.device) -> Measurement:
    used = torch.cuda.max_memory_allocated(device) / 2**20
    return Measurement(used, "MB", None, None, "the most memory of the GPU that all of this took at once")
