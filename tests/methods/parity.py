"""How close is close enough to the numbers of the official implementations (GOLDEN.md, "Suggested tolerances")."""

from __future__ import annotations

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
    """The largest error is at most a thousandth of the largest entry."""
    assert found is not None and found.shape == expected.shape
    assert np.abs(expected).max() > 1e-6  # an expected gradient of nothing but noise would prove nothing
    assert np.abs(array(found) - expected).max() <= 1e-3 * np.abs(expected).max()
