"""How close is close enough to the numbers of the official implementations (tests/golden/README.md)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch


def array(x) -> np.ndarray:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)


def of_variant(numbers: dict[str, np.ndarray], variant: str) -> dict[str, np.ndarray]:
    """The arrays "<variant>/..." without that beginning."""
    return {key.removeprefix(f"{variant}/"): value for key, value in numbers.items() if key.startswith(f"{variant}/")}


def same(found, expected) -> None:
    """Forward values: relative 1e-4, absolute 5e-5."""
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=5e-5)


def same_gradient(found, expected) -> None:
    """The largest error is at most a ten-thousandth of the largest entry."""
    assert found is not None and found.shape == expected.shape
    assert np.abs(expected).max() > 1e-6  # an expected gradient of nothing but noise would prove nothing
    assert np.abs(array(found) - expected).max() <= 1e-4 * np.abs(expected).max()


def learned(numbers: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """What an official implementation learns, by its own names, with the values that its `numbers` were computed with.

    For files that hold no values ("shape/<name>" instead): noise from the name, of a deviation that suits the kind.
    """
    found = {}
    for name, shape in ((k.removeprefix("shape/"), tuple(v)) for k, v in numbers.items() if k.startswith("shape/")):
        noise = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
        last = name.rsplit(".", 1)[-1]
        if last == "bias":
            noise = 0.02 * noise
        elif last == "weight" and len(shape) == 1:
            noise = 1 + 0.1 * noise
        elif last in ("weight", "in_proj_weight"):
            noise = noise / math.sqrt(shape[-1])
        else:
            noise = 0.1 * noise
        found[name] = torch.from_numpy(noise.astype(np.float32))
    return found


def same_gradients(found: Mapping[str, torch.Tensor], numbers: Mapping[str, np.ndarray]) -> None:
    """For the files of `learned`: each gradient's length and first 64 entries, within a ten-thousandth."""
    assert set(found) == set(learned(numbers))
    for name, gradient in found.items():
        gradient = array(gradient).astype(np.float64)
        length = float(numbers[f"grad_norm/{name}"])
        assert gradient.shape == tuple(numbers[f"shape/{name}"])
        assert abs(np.sqrt((gradient**2).sum()) - length) <= 1e-4 * length + 1e-6, name
        first = numbers[f"grad_first/{name}"]
        largest = max(np.abs(first).max(), length / math.sqrt(gradient.size))
        assert np.abs(gradient.reshape(-1)[:64] - first).max() <= 1e-4 * largest + 1e-6, name
