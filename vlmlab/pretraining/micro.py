"""How the micro backbones were made: CLIP's pretraining, small enough for a laptop, on images of MicroWorld.

Two losses train `micro-vit` (both towers):

    contrast  L_c = (CE(s F W^T, i) + CE(s W F^T, i)) / 2          images F [B, e] against their captions W [B, e]
              (Radford et al. 2021, section 2.3); captions that read the same are masked out of each other's negatives.
              Some images are one base object cut out and enlarged, and some are blurred, so that crops are named too.
    region    L_r = CE(s R T^T, class)                             pooled local features R [r, e] against names T [K, e]
              R averages MaskCLIP's local features over the part of an object, or over the free background, that the
              image shows. Only base categories and stuff take part: novel categories are known by name alone.

The region term is what a web-scale CLIP does without. At this size local features do not come by themselves, and readers
must know that the dense maps of the micro backbones had region supervision.

`micro-vit-fine` (128 pixels, 16 x 16 tokens, starts from micro-vit) and `micro-rn` (a ModifiedResNet, 128 pixels, 4 x 4
locations) learn their image tower only, against the frozen text tower of micro-vit, with the cosine to micro-vit's global
feature as a third loss. micro-rn sees its images at 64 pixels at first, where they cost a quarter.

micro-vit-fine has a fourth. What micro-vit says of a crop of an object is right far more often than what places say, so the
places of objects learn it (CLIPSelf, Wu et al. 2024, section 3.2, on masks where it has boxes):

    object    L_o = mean_o (1 - R_o . g_o) + mean_o mean_p (1 - F_op . g_o)     g_o micro-vit's global feature of object o's crop

R_o the mean local feature over the patches p that object o covers, F_op the local feature of one of them. No name takes part, and
so objects of all categories do: of novel ones the places learn where something is, and what micro-vit calls it.

Legend: B batch, e joint width, T tokens of an image, K region classes, r regions, s logit scale.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmlab.backbones.image_tower import ResNetTower
from vlmlab.backbones.token_table import token_vectors
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import cache_path, data_path, sha256, write_atomically
from vlmlab.randomness import LocalRandom
from vlmlab.world.captions import caption
from vlmlab.world.domains import DOMAINS
from vlmlab.world.mixture import draw
from vlmlab.world.objects import BASE
from vlmlab.world.palette import STUFF
from vlmlab.world.scene import Scene, SceneObject

SOFTEST, SHARPEST = 40.0, 100.0
"""Bounds of the logit scale. CLIP's ends at 100; left alone, ours stays near 20, where a prompt can hardly move a logit."""
POOL_SEED = 1_000_000  # images of the suite are drawn from seeds below a million
MAP = 16  # side of the instance maps that the pool keeps


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What one build does; `steps` batches of `batch` images from a pool of `pool` distinct ones."""

    config: str
    weights: str
    steps: int
    pool: int
    size: int = 64
    batch: int = 256
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    warmup: int = 200
    patch_dropout: tuple[float, float, float] = (0.75, 0.5, 0.0)  # in the first half, up to four fifths, at the end
    zoomed: float = 0.2  # share of the images that show one base object of a scene, cut out and enlarged
    blurred: float = 0.15  # share of the images that lose resolution, as enlarged ones do
    region_weight: float = 0.5
    small_until: float = 0.0  # share of the steps in which images are shown at half their size
    locked_text: bool = False  # learn the image tower only, against micro-vit's text tower
    distil_weight: float = 0.0
    object_weight: float = 0.0


RECIPES = {
    "micro-vit": Recipe("micro_vit.json", "micro_vit.safetensors", steps=4600, pool=160_000, lr=1.3e-3, warmup=300),
    "micro-vit-fine": Recipe(
        "micro_vit_fine.json", "micro_vit_fine.safetensors", steps=500, pool=16_000, size=128, batch=64,
        lr=5e-4, warmup=50, locked_text=True, distil_weight=5.0, object_weight=2.5, patch_dropout=(0.5, 0.5, 0.0),
        zoomed=0.0, blurred=0.0,
    ),
    "micro-rn": Recipe(
        "micro_rn.json", "micro_rn.safetensors", steps=1800, pool=48_000, size=128, batch=256, lr=2e-3, warmup=100,
        small_until=0.6, locked_text=True, distil_weight=5.0, patch_dropout=(0.0, 0.0, 0.0),
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- images


class Pool:
    """Distinct images of the pretraining mixture on disk: pixels, small instance maps, and what they show."""

    def __init__(self, folder: Path) -> None:
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.instances = np.load(folder / "instances.npy", mmap_mode="r")
        lines = (folder / "shown.jsonl").read_text(encoding="utf-8").splitlines()
        self.shown = [_shown(json.loads(line)) for line in lines]

    def __len__(self) -> int:
        return len(self.shown)

    def caption(self, i: int, rng: np.random.Generator) -> str:
        """A fresh caption of image i."""
        return describe(self.shown[i], rng)


def _shown(entry: dict) -> Scene | tuple[str, int]:
    if "domain" in entry:
        return entry["domain"], entry["index"]
    return Scene.from_dict(entry)


def describe(shown: Scene | tuple[str, int], rng: np.random.Generator) -> str:
    """A fresh caption of what an image shows: a scene, or a class of a domain."""
    said = caption(shown, rng) if isinstance(shown, Scene) else DOMAINS[shown[0]].caption(shown[1], rng)
    assert said is not None, "the pool holds no class that is withheld"
    return said


CROP = 64  # side at which micro-vit sees an image, or the crop of an object


def window(o: SceneObject, rng: np.random.Generator) -> list[list[float]]:
    """The window around an object as `affine_grid` takes it [2, 3]: 1 to 1.5 times its extent, inside of the image."""
    half = min(max(o.radius, 0.05) * rng.uniform(1, 1.5), 0.5)
    x, y = (min(max(v, half), 1 - half) for v in (o.x, o.y))
    return [[2 * half, 0, 2 * x - 1], [0, 2 * half, 2 * y - 1]]


def cut(images: Tensor, windows: list, side: int) -> Tensor:
    """The windows of images [r, 3, S, S], one each, at `side` pixels."""
    at = torch.tensor(windows, dtype=images.dtype)
    grid = F.affine_grid(at, [len(at), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def zoom(images: Tensor, shown: list, share: float, rng: np.random.Generator) -> tuple[Tensor, list, np.ndarray]:
    """Cut one base object out of some of the scenes with several, enlarge it, and let the caption speak of it alone.

    The window is 1 to 1.5 times the object's extent. Returns images [B, 3, S, S], what they show now, and which of them
    are still whole [B]. The share is reached among the images as far as there are enough scenes with a base object.
    """
    whole, shown = np.ones(len(shown), bool), list(shown)
    scenes = [
        b for b, s in enumerate(shown) if isinstance(s, Scene) and len(s.objects) > 1 and _BASE & set(s.categories)
    ]
    chosen = rng.permutation(scenes)[: round(share * len(shown))].astype(int)
    if not len(chosen):
        return images, shown, whole
    windows = []
    for b in chosen:
        choices = [o for o in shown[b].objects if o.category in _BASE]
        o = choices[int(rng.integers(len(choices)))]
        windows.append(window(o, rng))
        shown[b] = dataclasses.replace(shown[b], objects=(o,))
    whole[chosen] = False
    at = torch.from_numpy(chosen)
    images[at] = cut(images[at], windows, images.shape[-1])
    return images, shown, whole


def blur(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Reduce some images to between a third and two thirds of their side, and enlarge them again."""
    at = torch.from_numpy(rng.permutation(len(images))[: round(share * len(images))].astype(int))
    if len(at):
        side = images.shape[-1]
        small = F.interpolate(images[at], size=int(side * rng.uniform(0.33, 0.67)), mode="area")
        images[at] = F.interpolate(small, size=side, mode="bilinear", align_corners=False)
    return images


def _paint_chunk(seed: int, count: int, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    pixels = np.zeros((count, size, size, 3), np.uint8)
    maps = np.zeros((count, MAP, MAP), np.uint8)
    lines = []
    step = size // MAP
    for i in range(count):
        sample = draw(rng, size)
        pixels[i] = sample.pixels
        if sample.scene is None:
            lines.append(json.dumps({"domain": sample.domain, "index": sample.index}))
        else:
            maps[i] = sample.instances[step // 2 :: step, step // 2 :: step]
            lines.append(json.dumps(sample.scene.as_dict()))
    return pixels, maps, lines


def make_pool(count: int, size: int = 64, workers: int = 1, chunk: int = 1000, echo: Callable = print) -> Pool:
    """The first `count` images of the mixture at `size`, painted once and cached on the user's disk."""
    folder = cache_path("pretraining", f"pool-{size}-{count}-{POOL_SEED}")
    if not (folder / "shown.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # .npy files that are written in place; shown.jsonl comes last, and without it the folder does not count.
        pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (count, size, size, 3))
        maps = np.lib.format.open_memmap(folder / "instances.npy", "w+", np.uint8, (count, MAP, MAP))
        starts = range(0, count, chunk)
        lines: list[str] = []
        with ProcessPoolExecutor(workers) as executor:
            jobs = [executor.submit(_paint_chunk, POOL_SEED + s, min(chunk, count - s), size) for s in starts]
            for s, job in zip(starts, jobs, strict=True):
                p, m, text = job.result()
                pixels[s : s + len(p)], maps[s : s + len(p)] = p, m
                lines += text
                if (s // chunk) % 20 == 0:
                    echo(f"pool: {s + len(p)} of {count} images")
        pixels.flush()
        maps.flush()
        write_atomically(folder / "shown.jsonl", "\n".join(lines))
    return Pool(folder)


def normalised(pixels: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, S, S] with CLIP's mean and standard deviation."""
    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1)


# ---------------------------------------------------------------------------------------------------------- model


class Words(nn.Module):
    """The token table while it learns: frozen sentence-encoder vectors, one linear map, a correction for tokens met.

    The correction is dropped at random in training, so that a token without one (a word no caption used) still works.
    """

    def __init__(self, seen: Tensor, width: int, drop: float = 0.3) -> None:
        super().__init__()
        vectors = token_vectors()
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("seen", seen)
        row = torch.full((len(vectors),), -1)
        row[seen] = torch.arange(len(seen))
        self.register_buffer("row", row, persistent=False)
        self.map = nn.Linear(vectors.shape[1], width, bias=False)
        nn.init.normal_(self.map.weight, std=0.02 / math.sqrt(vectors.shape[1] / 64))
        self.correction = nn.Parameter(0.01 * torch.randn(len(seen), width))
        self.drop = drop

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, L] -> embeddings [N, L, d]."""
        unique, back = tokens.unique(return_inverse=True)
        row = self.row[unique]
        kept = row >= 0
        if self.training:
            kept = kept & ((torch.rand(len(unique)) > self.drop) | (unique >= 49406) | (unique == 0))
        table = self.map(self.vectors[unique]) + self.correction[row.clamp(min=0)] * kept[:, None]
        return table[back]

    @torch.no_grad()
    def table(self) -> Tensor:
        """The finished table [49408, d]."""
        table = self.map(self.vectors)
        table[self.seen] += self.correction
        return table


class Texts:
    """Captions to tokens, trimmed to the longest of the batch; words are cached."""

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        self.words: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """[start, tokens ..., end] of one text."""
        out = [self.tokenizer.sot_token_id]
        for word in text.split():
            if word not in self.words:
                self.words[word] = self.tokenizer.encode(word)
            out += self.words[word]
        return [*out[:76], self.tokenizer.eot_token_id]

    def __call__(self, texts: list[str]) -> Tensor:
        rows = [self.ids(t) for t in texts]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row)
        return out


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 itself. Where it does not, PyTorch imitates it, ten times slower than float32."""
    return any(getattr(torch.cpu, f"_is_{kind}_supported", bool)() for kind in ("amx_tile", "avx512_bf16"))


def text_features(model: CLIP, words: nn.Module, tokens: Tensor) -> Tensor:
    """Unit text features [N, e] of trimmed tokens [N, L]."""
    length = tokens.shape[1]
    x = words(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    pooled = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection
    return F.normalize(pooled.float(), dim=-1)


def vit_features(visual: nn.Module, images: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Global unit features [B, e], local ones [B, T, e] (MaskCLIP's path), and which of the patches they are [B, T]."""
    x = visual.conv1(images).flatten(2).transpose(1, 2) + visual.positional_embedding[1:]
    patches = x.shape[1]
    kept = torch.arange(patches).expand(len(x), -1)
    if dropout:
        kept = torch.rand(len(x), patches).topk(round(patches * (1 - dropout))).indices
        x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
    start = (visual.class_embedding + visual.positional_embedding[0]).to(x.dtype).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([start, x], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    pooled = visual.ln_post(last(x)[:, 0]) @ visual.proj
    # Identity attention in the last block: every patch keeps its own value.
    width = x.shape[-1]
    normed = last.ln_1(x[:, 1:])
    value = F.linear(normed, last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :])
    local = x[:, 1:] + last.attn.out_proj(value)
    local = visual.ln_post(local + last.mlp(last.ln_2(local))) @ visual.proj
    return F.normalize(pooled.float(), dim=-1), F.normalize(local.float(), dim=-1), kept


def resnet_features(tower: ResNetTower, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `vit_features` of a ModifiedResNet whose attention pool gives the local features; `images` may have any size."""
    x = tower.last_map(images.to(memory_format=torch.channels_last))
    tokens = x.flatten(2).transpose(1, 2)
    pooled = tower.pool(x, positions=True, queries=1)[0][:, 0]
    local = tower.values(tokens)
    kept = torch.arange(tokens.shape[1]).expand(len(x), -1)
    return F.normalize(pooled.float(), dim=-1), F.normalize(local.float(), dim=-1), kept


def region_targets(pool: Pool, index: np.ndarray, grid: int, whole: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Regions of a batch: the image each is in [r], the share of each patch that it covers [r, grid^2], its class [r].

    `whole` [B] is false for the images that were cut, which the instance maps no longer fit.
    """
    pictures, covers, classes = [], [], []
    step = MAP // grid if grid <= MAP else 1
    for b, i in enumerate(index):
        scene = pool.shown[i]
        if not isinstance(scene, Scene) or not whole[b]:
            continue
        m = pool.instances[i]
        shares = [(m == k + 1, BASE.index(c)) for k, o in enumerate(scene.objects) if (c := o.category) in _BASE]
        if scene.style in ("photo", "flat") and scene.background in STUFF:
            shares.append((m == 0, len(BASE) + STUFF.index(scene.background)))
        for mask, label in shares:
            cover = mask.reshape(grid, step, grid, step).mean((1, 3)).ravel()
            cover = cover * (cover >= 0.5) if label >= len(BASE) else cover
            if cover.sum() > 0.3:
                pictures.append(b)
                covers.append(cover)
                classes.append(label)
    if not pictures:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, grid * grid), torch.zeros(0, dtype=torch.long)
    return torch.tensor(pictures), torch.from_numpy(np.stack(covers)).float(), torch.tensor(classes)


def object_targets(
    pool: Pool, index: np.ndarray, grid: int, whole: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list]:
    """Objects of a batch, whatever they are called: the image each is in [r], the share of each patch that it covers [r, grid^2], and
    the window around it (`window`). `whole` [B] as for `region_targets`."""
    pictures, covers, windows = [], [], []
    step = MAP // grid if grid <= MAP else 1
    for b, i in enumerate(index):
        scene = pool.shown[i]
        if isinstance(scene, Scene) and whole[b]:
            for k, o in enumerate(scene.objects):
                cover = (pool.instances[i] == k + 1).reshape(grid, step, grid, step).mean((1, 3)).ravel()
                if cover.sum() > 0.3:
                    pictures.append(b)
                    covers.append(cover)
                    windows.append(window(o, rng))
    if not pictures:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, grid * grid), []
    return torch.tensor(pictures), torch.from_numpy(np.stack(covers)).float(), windows


_BASE = frozenset(BASE)
REGION_TEXTS = tuple(f"a photo of {'an' if n[0] in 'aeiou' else 'a'} {n}" for n in BASE) + tuple(
    f"a photo of {name}" for name in STUFF
)


def _seen_tokens(texts: Texts, pool: Pool) -> Tensor:
    rng = np.random.default_rng(0)
    seen = {0, 49406, 49407}
    for i in range(min(len(pool), 20_000)):
        seen.update(texts.ids(pool.caption(i, rng)))
    for text in REGION_TEXTS:
        seen.update(texts.ids(text))
    return torch.tensor(sorted(seen))


def new_model(recipe: Recipe) -> CLIP:
    """A CLIP of open_clip with the recipe's configuration and random weights."""
    config = json.loads(data_path("backbones", recipe.config).read_text(encoding="utf-8"))
    config["text_cfg"]["vocab_size"] = 1 if not recipe.locked_text else config["text_cfg"]["vocab_size"]
    return CLIP(**config, init_logit_scale=math.log(SOFTEST))


# ---------------------------------------------------------------------------------------------------------- training


CHECKPOINT_EVERY = 200


def build(
    name: str,
    steps: int | None = None,
    pool: int | None = None,
    threads: int | None = None,
    workers: int = 2,
    resume: bool = True,
    out: Path | None = None,
    echo: Callable = print,
) -> Path:
    """Pretrain `name` and write its weights, manifest entry and card figures to `out` (default data/backbones).

    A checkpoint every `CHECKPOINT_EVERY` steps lies in the user's cache: a build that was killed goes on from there when `resume`.
    Raises `VlmlabError` for an unknown name, or if a build that needs micro-vit finds none.
    """
    if name not in RECIPES:
        raise unknown("micro backbone", name, RECIPES)
    recipe = RECIPES[name]
    recipe = dataclasses.replace(recipe, steps=steps or recipe.steps, pool=pool or recipe.pool)
    if threads:
        torch.set_num_threads(threads)
    out = Path(out) if out else data_path("backbones")
    pictures = make_pool(recipe.pool, recipe.size, workers, echo=echo)
    trainer = Trainer(name, recipe, pictures, out)
    checkpoint = cache_path("pretraining", f"{name}-{recipe.steps}-{recipe.pool}.pt")
    if resume and checkpoint.is_file():
        trainer.load(torch.load(checkpoint, weights_only=True))
        echo(f"{name}: resumed at step {trainer.step}")
    begun, first, running = time.time(), trainer.step, None
    while trainer.step < recipe.steps:
        losses = trainer.train_step()
        running = losses if running is None else {k: 0.97 * running[k] + 0.03 * v for k, v in losses.items()}
        if trainer.step % 50 == 0:
            speed = (trainer.step - first) * recipe.batch / (time.time() - begun)
            said = " ".join(f"{k} {v:.3f}" for k, v in running.items())
            echo(f"{name}: step {trainer.step}/{recipe.steps} {speed:.0f} images/s {said}")
        if trainer.step % CHECKPOINT_EVERY == 0:
            _save_checkpoint(checkpoint, trainer)
    trainer.export(name, out)
    return out


def _save_checkpoint(path: Path, trainer: Trainer) -> None:
    import io

    stream = io.BytesIO()
    torch.save(trainer.state(), stream)
    write_atomically(path, stream.getvalue())


class Trainer:
    """One build under way: model, optimiser, and the random streams that make a resumed run equal an unbroken one."""

    def __init__(self, name: str, recipe: Recipe, pool: Pool, out: Path) -> None:
        self.recipe, self.pool, self.step = recipe, pool, 0
        self.texts = Texts()
        with LocalRandom(0):
            self._build(name, out)
        named = [(n, p) for n, p in self.learned.named_parameters() if p.requires_grad]
        decayed = [p for n, p in named if p.ndim >= 2 and "embedding" not in n and "correction" not in n]
        others = [p for n, p in named if not (p.ndim >= 2 and "embedding" not in n and "correction" not in n)]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)
        self.parameters = [p for _, p in named]

    def _build(self, name: str, out: Path) -> None:
        """The model that learns, and what it learns from."""
        self.model = self._new_model()
        self.is_vit = hasattr(self.model.visual, "conv1") and hasattr(self.model.visual, "transformer")
        if not self.is_vit:
            self.model.visual.to(memory_format=torch.channels_last)
            self.tower = ResNetTower(self.model.visual, name)
        self.teacher: Any = None
        if self.recipe.locked_text:
            self._lock(out)
        else:
            del self.model.token_embedding
            self.words = Words(_seen_tokens(self.texts, self.pool), self.model.positional_embedding.shape[1])
            self.learned = nn.ModuleDict({"model": self.model, "words": self.words})

    def _new_model(self) -> CLIP:
        """The towers with random weights; a study of other sizes has its own."""
        return new_model(self.recipe)

    def _lock(self, out: Path) -> None:
        """Take text tower and teacher from a finished micro-vit; the image tower of a finer ViT starts from the teacher's."""
        files = [out / "micro_text.safetensors", out / "micro_vit.safetensors"]
        if not all(f.is_file() for f in files):
            raise VlmlabError(f"{out} has no micro-vit to learn from; run vlmlab build micro-vit first")
        state = {k: v.float() for f in files for k, v in load_file(f).items()}
        text = {k: v for k, v in state.items() if not k.startswith("visual.")}
        self.model.load_state_dict(text, strict=False)
        teacher = CLIP(**json.loads((data_path("backbones") / "micro_vit.json").read_text(encoding="utf-8")))
        teacher.load_state_dict(state)
        self.teacher = teacher.eval().requires_grad_(False)
        self.taught = torch.full((len(self.pool), self.model.text_projection.shape[1]), torch.nan)
        if self.is_vit:
            visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
            visual["positional_embedding"] = _resized_positions(visual["positional_embedding"], self.model.visual)
            self.model.visual.load_state_dict(visual)
        for n, p in self.model.named_parameters():
            p.requires_grad_(n.startswith("visual."))
        self.words = self.model.token_embedding
        self.learned = nn.ModuleDict({"model": self.model})

    def train_step(self) -> dict[str, float]:
        """One batch; returns the losses. What it draws depends on the step alone."""
        with LocalRandom(1000 + self.step):
            return self._train_step()

    def _train_step(self) -> dict[str, float]:
        r = self.recipe
        rng = np.random.default_rng([7, self.step])  # batch and captions depend on the step alone
        order = np.random.default_rng([11, self.step * r.batch // len(self.pool)]).permutation(len(self.pool))
        at = self.step * r.batch % len(self.pool)
        index = np.sort(order[at : at + r.batch])
        progress = self.step / r.steps
        lr = r.lr * min(1, (self.step + 1) / r.warmup) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = max(lr, 1e-6)
        shown = [self.pool.shown[i] for i in index]
        images = normalised(self.pool.pixels[index])
        images, shown, whole = zoom(images, shown, r.zoomed, rng)
        images = blur(images, r.blurred, rng)
        captions = [describe(s, rng) for s in shown]
        unique, back = np.unique(captions, return_inverse=True)
        back = torch.from_numpy(back)
        self.learned.train()
        dropout = r.patch_dropout[0 if progress < 0.5 else 1 if progress < 0.8 else 2]
        if progress < r.small_until:
            images = F.interpolate(images, size=r.size // 2, mode="area")
        losses: dict[str, Tensor] = {}
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            if self.is_vit:
                f, local, kept = vit_features(self.model.visual, images, dropout)
            else:
                f, local, kept = resnet_features(self.tower, images)
            with torch.set_grad_enabled(not r.locked_text):
                w = text_features(self.model, self.words, self.texts(unique.tolist()))
                names = (
                    text_features(self.model, self.words, self.texts(list(REGION_TEXTS))) if r.region_weight else None
                )
        scale = self.model.logit_scale.exp()
        logits = scale * f @ w[back].T
        same = (back[:, None] == back[None]) & ~torch.eye(len(back), dtype=torch.bool)
        logits = logits.masked_fill(same, -1e4)
        target = torch.arange(len(back))
        losses["contrast"] = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        total = losses["contrast"]
        if r.region_weight:
            grid = 8 * images.shape[-1] // 64 if self.is_vit else images.shape[-1] // 32
            picture, cover, label = region_targets(self.pool, index, grid, whole)
            if len(picture):
                weight = cover.gather(1, kept[picture])
                full = weight.sum(1) > 0.2
                picture, weight, label = picture[full], weight[full], label[full]
                pooled = F.normalize(torch.einsum("rt,rte->re", weight, local[picture]), dim=-1)
                losses["region"] = F.cross_entropy(scale * pooled @ names.T, label)
                total = total + r.region_weight * losses["region"]
        if r.object_weight:
            grid = math.isqrt(self.model.visual.positional_embedding.shape[0])
            picture, cover, windows = object_targets(self.pool, index, grid, whole, rng)
            weight = cover.gather(1, kept[picture])
            full = weight.sum(1) > 0.2
            if full.any():
                picture, weight = picture[full], weight[full]
                said = self._said_of(cut(images[picture], [w for w, f in zip(windows, full, strict=True) if f], CROP))
                pooled = F.normalize(torch.einsum("rt,rte->re", weight, local[picture]), dim=-1)
                places = (torch.einsum("rte,re->rt", local[picture], said) * weight).sum(1) / weight.sum(1)
                losses["object"] = (1 - (pooled * said).sum(1)).mean() + (1 - places).mean()
                total = total + r.object_weight * losses["object"]
        if self.teacher is not None:
            intact = torch.from_numpy(whole)
            losses["distil"] = 1 - (f * self._taught(index))[intact].sum(1).mean()
            total = total + r.distil_weight * losses["distil"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(math.log(SOFTEST), math.log(SHARPEST))
        self.step += 1
        return {k: v.item() for k, v in losses.items()} | {"scale": scale.item()}

    @torch.no_grad()
    def _taught(self, index: np.ndarray) -> Tensor:
        """The teacher's unit features [B, e] of whole images of the pool at 64 pixels; each is encoded once."""
        new = index[self.taught[index].isnan().any(1).numpy()]
        if len(new):
            self.taught[new] = self._said_of(F.interpolate(normalised(self.pool.pixels[new]), size=CROP, mode="area"))
        return self.taught[index]

    @torch.no_grad()
    def _said_of(self, images: Tensor) -> Tensor:
        """The teacher's unit features [B, e] of images [B, 3, 64, 64]."""
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            return F.normalize(self.teacher.visual(images).float(), dim=-1)

    def state(self) -> dict:
        """Everything that the next step depends on."""
        return {"learned": self.learned.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load(self, state: dict) -> None:
        """Continue from a state."""
        self.learned.load_state_dict(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def export(self, name: str, out: Path) -> None:
        """Weights as fp16 safetensors in open_clip's names, and the manifest entry that pins them."""
        state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if not self.recipe.locked_text:
            state["token_embedding.weight"] = self.words.table()
        visual = {k: _half(v) for k, v in state.items() if k.startswith("visual.")}
        files = ["micro_text.safetensors", self.recipe.weights]
        if not self.recipe.locked_text:
            text = {k: _half(v) for k, v in state.items() if not k.startswith("visual.") and k != "attn_mask"}
            write_atomically(out / files[0], save(text))
        write_atomically(out / files[1], save(visual))
        path = out / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        pins = {f: sha256(out / f) for f in files}
        manifest[name] = {"config": self.recipe.config, "weights": files, "sha256": pins}
        if not self.recipe.locked_text:  # the text tower is shared: whoever uses it is pinned to the new one
            for entry in manifest.values():
                if files[0] in entry["sha256"]:
                    entry["sha256"][files[0]] = pins[files[0]]
        write_atomically(path, json.dumps(manifest, indent=1))


def _half(x: Tensor) -> Tensor:
    return (x.half() if x.is_floating_point() else x).contiguous()


def _resized_positions(positions: Tensor, visual: nn.Module) -> Tensor:
    """Positions [1 + g^2, d] of a coarser grid for the finer grid of `visual`, bicubically."""
    target = visual.positional_embedding
    old, new = math.isqrt(len(positions) - 1), math.isqrt(len(target) - 1)
    grid = positions[1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([positions[:1], grid.permute(0, 2, 3, 1).reshape(new * new, -1)])
