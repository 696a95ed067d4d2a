"""The three tiny CLIPs that the reference numbers in this folder were made with, rebuilt from their weight rule.

Each tensor follows from its name and shape alone (README.md beside this file), so no weights are stored; the SHA-256 of all bytes is checked.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from vlmlab.backbones.backbone import Backbone

FOLDER = Path(__file__).parent
CLASSES = ["golden retriever", "tabby cat", "sports car", "oak tree", "airliner"]

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 4}
CONFIGS = {
    "vit": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 4, "width": 64},
        "text_cfg": TEXT,
    },
    "rn": {"embed_dim": 64, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": TEXT},
    "asym": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 3, "width": 128},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
    },
}


def golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of `<name>.npz` in this folder."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that the weight rule gives a key of OpenAI's state dict."""
    last = key.split(".")[-1]
    if key == "logit_scale":
        return np.float32(np.log(1 / 0.07))
    if last == "num_batches_tracked":
        return np.int64(0)
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if last == "running_mean":
        v = 0.1 * n
    elif last == "running_var":
        v = 1 + 0.2 * np.abs(n)
    elif last.endswith("bias"):
        v = 0.02 * n
    elif len(shape) == 1 and last == "weight":
        v = 1 + 0.1 * n
    elif key == "token_embedding.weight":
        v = 0.05 * n
    elif key == "positional_embedding":
        v = 0.02 * n
    elif last in ("class_embedding", "positional_embedding"):
        v = n / math.sqrt(shape[-1])
    elif last in ("proj", "text_projection"):
        v = n / math.sqrt(shape[0])
    elif len(shape) == 4 and shape[1] > 3:
        v = 1.3 * math.sqrt(2 / np.prod(shape[1:])) * (n - n.mean(1, keepdims=True))
    elif len(shape) == 4:
        v = math.sqrt((2 if shape[2] == 3 else 1) / np.prod(shape[1:])) * n
    else:
        doubled = "in_proj_weight" in key or ("visual.attnpool." in key and "c_proj" not in key)
        v = (2 if doubled else 1) * n / math.sqrt(shape[1])
    return np.asarray(v, np.float32)


@functools.lru_cache
def weights(name: str) -> dict[str, torch.Tensor]:
    """The state dict of a tiny CLIP, in OpenAI's layout; its bytes are checked against the recorded SHA-256."""
    base = golden("base")
    shapes = json.loads(str(base[f"{name}/shapes_json"]))
    arrays = {key: value(key, tuple(shapes[key])) for key in sorted(shapes)}
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())).hexdigest()
    assert digest == str(base[f"{name}/weights_sha256"])
    return {key: torch.from_numpy(np.asarray(a)) for key, a in arrays.items()}


def tiny_model(name: str, quick_gelu: bool = True, eps: float = 1e-5) -> CLIP:
    """open_clip's CLIP with the weights of "vit", "rn" or "asym"; `eps` is that of the image tower's layer norms."""
    model = CLIP(**CONFIGS[name], quick_gelu=quick_gelu)
    model.load_state_dict(weights(name))
    for module in model.visual.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model.eval()


def tiny_backbone(name: str, quick_gelu: bool = True, eps: float = 1e-5) -> Backbone:
    """A tiny CLIP as a Backbone, on the CPU in float32."""
    return Backbone(f"tiny-{name}", tiny_model(name, quick_gelu, eps), SimpleTokenizer(context_length=77))


def noise_images(side: int, count: int = 8) -> torch.Tensor:
    """The golden inputs [count, 3, side, side]: white noise at 32, noise over a coarse pattern at 64, 96 and 128 (section 2)."""
    if side == 32:
        return torch.from_numpy(golden("base")["in/images_32"][:count])
    # A batch of n images is the first n of the batch of 8.
    coarse = np.random.Generator(np.random.PCG64(1)).standard_normal((8, 3, 4, 4))
    fine = np.random.Generator(np.random.PCG64(1001)).standard_normal((8, 3, side, side))
    images = 2 * np.repeat(np.repeat(coarse, side // 4, 2), side // 4, 3) + 0.5 * fine
    return torch.from_numpy(images[:count].astype(np.float32))
