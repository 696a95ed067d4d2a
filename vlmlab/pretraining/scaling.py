"""The scaling study of chapter 8.1: what distinct images, size of the model, images seen and wrong captions are worth.

    python -m vlmlab.pretraining.scaling                  all arms, some four hours of one core
    python -m vlmlab.pretraining.scaling --grid A         one grid, seed 0
    python -m vlmlab.pretraining.scaling --list           the arms, and which of them are there

The recipe is that of micro-vit but for what a grid varies; every arm has a whole schedule.

| grid | varied | fixed |
|---|---|---|
| A | distinct images: 1k, 4k, 16k, 64k | micro-vit, 205k images seen |
| B | width x layers of the image tower, with text towers of 64 x 2, 64 x 4, 128 x 4 | 64k images, 205k seen |
| C | images seen: 51k, 102k | micro-vit, 64k images |
| D | captions: right; half of them those of other images; the better half of these by micro-vit's score | 32k images met, 205k seen |

An arm writes a line of data/measured/scaling.csv when it ends, and a checkpoint every `micro.CHECKPOINT_EVERY` steps, so that a
run that was stopped goes on where it was. Grid A at 64k images is the middle of B and the end of C. The committed weights (1.18
million images seen, 160k distinct) are measured as the arm `committed`.

Wrong captions (grid D) are drawn once: image i is told by what image m(i) shows. Regions are named right in any case, so grid D
has no region term, nor has its arm with right captions. A second seed is another start of the towers, and other wrong captions; the
order of the images is the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from vlmlab.backbones.backbone import Backbone
from vlmlab.backbones.loading import load_backbone
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import cache_path, data_path, read_lines, write_atomically, write_lines
from vlmlab.pretraining import measure, micro
from vlmlab.randomness import LocalRandom

FILE = "scaling.csv"
SEEN = 800  # batches of 256: 205k images
COMMITTED = "committed"
GRIDS = ("A", "B", "C", "D")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One pretraining run.

    pool: distinct images; steps: batches of `batch`; image and text: (width, layers) of the towers; captions: "right", "half
    wrong" or "better half" (of those that are half wrong, the half that micro-vit scores higher).
    """

    grid: str
    pool: int = 64_000
    steps: int = SEEN
    image: tuple[int, int] = (128, 6)
    text: tuple[int, int] = (128, 4)
    captions: str = "right"
    seed: int = 0
    batch: int = 256

    @property
    def name(self) -> str:
        """Which run this is, whatever its grid: "64000-800-128x6-128x4-right-0"."""
        sizes = "-".join(f"{width}x{layers}" for width, layers in (self.image, self.text))
        told = self.captions.replace(" ", "_") + ("-no_regions" if self.grid == "D" else "")
        return f"{self.pool}-{self.steps}-{sizes}-{told}-{self.seed}"

    @property
    def seen(self) -> int:
        """Images seen."""
        return self.steps * self.batch


ARMS: tuple[Arm, ...] = (
    *(Arm("A", pool) for pool in (1_000, 4_000, 16_000, 64_000)),
    Arm("B", image=(64, 4), text=(64, 2)),
    Arm("B", image=(64, 4)),
    Arm("B", image=(192, 6)),
    Arm("C", steps=200),
    Arm("C", steps=400),
    Arm("D", 32_000),
    Arm("D", captions="half wrong"),
    Arm("D", captions="better half"),
    # A second seed of the ends of A, of the smallest of B, and of D.
    Arm("A", 1_000, seed=1),
    Arm("A", 64_000, seed=1),
    Arm("B", image=(64, 4), text=(64, 2), seed=1),
    Arm("D", captions="half wrong", seed=1),
    Arm("D", captions="better half", seed=1),
)
COLUMNS = (
    "arm", "grid", "distinct", "seen", "image_tower", "text_tower", "captions", "seed", "parameters", "photo", "styles",
    "domains", "retrieval", "true_captions", "minutes",
)  # fmt: skip
"""Of the file: names and sizes; then in %: zero-shot on photos and mean over six styles, mean over the domains, recall at 1 of text
to image among 1,000 scenes, captions that are of their image; minutes of the processor."""


def recipe(arm: Arm) -> micro.Recipe:
    """micro-vit's recipe with the sizes of an arm."""
    own = dataclasses.replace(micro.RECIPES["micro-vit"], steps=arm.steps, pool=arm.pool, batch=arm.batch)
    warmup = min(own.warmup, max(1, arm.steps // 10))
    weight = own.region_weight if arm.grid != "D" else 0.0
    return dataclasses.replace(own, warmup=warmup, region_weight=weight)


class _Captioned(micro.Pool):
    """A pool whose image i is told by what image `of[i]` shows; only the images `keep` are met."""

    def __init__(self, pool: micro.Pool, of: np.ndarray, keep: np.ndarray) -> None:
        self.pixels = _Rows(pool.pixels, keep)
        self.instances = _Rows(pool.instances, keep)
        self.shown = [pool.shown[k] for k in of[keep].tolist()]
        self.right = float((of[keep] == keep).mean())


class _Rows:
    """Rows of an array on disk, by their places in a list."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows

    def __getitem__(self, index):
        return self.array[self.rows[index]]


class _Trainer(micro.Trainer):
    """Towers of an arm's sizes, random numbers of its seed; no image is zoomed where captions are of other images."""

    def __init__(self, arm: Arm, pool: micro.Pool, out: Path) -> None:
        self.arm = arm
        own = recipe(arm)
        if arm.grid == "D":  # a zoomed image would be told by its own object, which is right
            own = dataclasses.replace(own, zoomed=0.0)
        super().__init__("micro-vit", own, pool, out)

    def _build(self, name: str, out: Path) -> None:
        with LocalRandom(self.arm.seed):
            super()._build(name, out)

    def _new_model(self) -> CLIP:
        config = json.loads(data_path("backbones", self.recipe.config).read_text(encoding="utf-8"))
        for tower, (width, layers) in (("vision_cfg", self.arm.image), ("text_cfg", self.arm.text)):
            config[tower] |= {"width": width, "layers": layers}
        config["text_cfg"] |= {"vocab_size": 1, "heads": max(1, self.arm.text[0] // 32)}
        return CLIP(**config, init_logit_scale=math.log(micro.SOFTEST))


def pool_of(arm: Arm, workers: int = 1, echo: Callable = print) -> tuple[micro.Pool, float]:
    """The images and captions of an arm, and the share of captions that are of their image."""
    pool = micro.make_pool(arm.pool, workers=workers, echo=echo)
    if arm.captions == "right":
        return pool, 1.0
    if arm.captions not in ("half wrong", "better half"):
        raise unknown("captions", arm.captions, ("right", "half wrong", "better half"))
    rng = np.random.default_rng([17, arm.seed])
    of = np.arange(len(pool))
    moved = rng.permutation(len(pool))[: len(pool) // 2]
    of[moved] = of[np.roll(moved, 1)]
    if arm.captions == "half wrong":
        keep = np.sort(rng.permutation(len(pool))[: len(pool) // 2])  # as many images as the filter keeps
    else:
        scores = _scores(pool, of, rng)
        keep = np.sort(np.argsort(-scores)[: len(pool) // 2])
    told = _Captioned(pool, of, keep)
    return told, told.right


@torch.no_grad()
def _scores(pool: micro.Pool, of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cosine [n] of every image with a caption that it was given, by micro-vit."""
    backbone = load_backbone("micro-vit", device="cpu")
    found: list[Tensor] = []
    for chunk in np.array_split(np.arange(len(pool)), -(-len(pool) // 250)):
        images = backbone.encode_image(micro.normalised(pool.pixels[chunk]))
        texts = backbone.encode_text([micro.describe(pool.shown[k], rng) for k in of[chunk].tolist()])
        found.append(F.cosine_similarity(images, texts))
    return torch.cat(found).numpy()


def run(
    arm: Arm,
    stop: Callable[[int], bool] = lambda step: False,
    each: int = 10,
    scenes: int = 1000,
    workers: int = 1,
    echo: Callable = print,
) -> dict | None:
    """The line of one arm; None if `stop(step)` said so, in which case a later run goes on from there.

    Args:
        each: images per class of the zero-shot tests; scenes: of retrieval.
        workers: processes that paint the images, once.
    """
    folder = cache_path("pretraining", "scaling")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{arm.name}.pt"
    pool, true = pool_of(arm, workers, echo)
    trainer = _Trainer(arm, pool, data_path("backbones"))
    spent = 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        trainer.load(state)
        spent = state["spent"]
        echo(f"{arm.name}: resumed at step {trainer.step}")
    begun = time.process_time()
    while trainer.step < arm.steps:
        stopped = stop(trainer.step)
        if stopped or (trainer.step and trainer.step % micro.CHECKPOINT_EVERY == 0):
            stream = io.BytesIO()
            torch.save(trainer.state() | {"spent": spent + time.process_time() - begun}, stream)
            write_atomically(checkpoint, stream.getvalue())
            echo(f"{arm.name}: step {trainer.step} of {arm.steps}")
        if stopped:
            return None
        trainer.train_step()
    row = facts(arm) | judged(opened(trainer), each, scenes)
    row |= {
        "parameters": sum(p.numel() for p in trainer.parameters),
        "true_captions": round(100 * true, 1),
        "minutes": round((spent + time.process_time() - begun) / 60, 1),
    }
    checkpoint.unlink(missing_ok=True)
    return row


def opened(trainer: micro.Trainer) -> Backbone:
    """The trainer's model as a backbone."""
    model = trainer.model
    table = trainer.words.table().detach()
    model.token_embedding = torch.nn.Embedding.from_pretrained(table)
    return Backbone("arm", model, micro.SimpleTokenizer(context_length=77), embedded=True)


def facts(arm: Arm) -> dict:
    """What an arm is, as the file has it."""
    image, text = (f"{width} x {layers}" for width, layers in (arm.image, arm.text))
    return {
        "arm": arm.name, "grid": arm.grid, "distinct": arm.pool // (1 if arm.captions == "right" else 2), "seen": arm.seen,
        "image_tower": image, "text_tower": text, "captions": arm.captions, "seed": arm.seed,
    }  # fmt: skip


def judged(backbone: Backbone, each: int = 10, scenes: int = 1000) -> dict:
    """What is measured of a model, in percent."""
    styles = measure.zero_shot(backbone, each)
    domains = measure.domains(backbone, 30 * each)
    return {
        "photo": styles["photo"],
        "styles": round(float(np.mean(list(styles.values()))), 1),
        "domains": round(float(np.mean(list(domains.values()))), 1),
        "retrieval": measure.retrieval(backbone, scenes)["text to image R@1"],
    }


def committed(each: int = 10, scenes: int = 1000) -> dict:
    """The line of the weights that vlmlab has: micro-vit's whole recipe, the last point of grid C."""
    own = micro.RECIPES["micro-vit"]
    backbone = load_backbone("micro-vit", device="cpu")
    arm = Arm("C", own.pool, own.steps, batch=own.batch)
    return facts(arm) | judged(backbone, each, scenes) | {"arm": COMMITTED, "true_captions": 100.0}


def study(arms: Sequence[Arm], path: Path, echo: Callable = print, **settings) -> list[dict]:
    """Run the arms that the file `path` lacks, one after the other; returns all its lines. Settings are those of `run`."""
    for arm in arms:
        rows = read_lines(path, COLUMNS)
        if any(row["arm"] == arm.name for row in rows):
            continue
        echo(f"grid {arm.grid}: {arm.name}")
        row = run(arm, echo=echo, **settings)
        if row is None:
            break
        write_lines(path, COLUMNS, [*rows, row])
    return read_lines(path, COLUMNS)


def main(given: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m vlmlab.pretraining.scaling", description="the scaling study, resumable")
    parser.add_argument("--grid", action="append", choices=GRIDS, help="only this one; may be repeated")
    parser.add_argument("--seed", action="append", type=int, help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=data_path("measured") / FILE, help="the file of lines")
    parser.add_argument("--list", action="store_true", help="say which arms are there, run nothing")
    parser.add_argument("--workers", type=int, default=1, help="processes that paint images")
    asked = parser.parse_args(given)
    arms = [a for a in ARMS if (not asked.grid or a.grid in asked.grid) and (not asked.seed or a.seed in asked.seed)]
    try:
        if asked.list:
            there = {row["arm"] for row in read_lines(asked.out, COLUMNS)}
            for arm in arms:
                print(f"{arm.grid}  {'done' if arm.name in there else 'open'}  {arm.name}")
        else:
            study(arms, asked.out, workers=asked.workers)
            if any(arm.grid == "C" for arm in arms):
                rows = read_lines(asked.out, COLUMNS)
                if not any(row["arm"] == COMMITTED for row in rows):
                    write_lines(asked.out, COLUMNS, [*rows, committed()])
    except VlmlabError as error:
        print(f"vlmlab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
