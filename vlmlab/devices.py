"""From the processor's memory to where a model computes."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on `device`, as `x.to(device)` gives it; to a GPU without waiting for the copy.

    A GPU fetches from pinned memory beside what it computes, and only what uses the tensor there waits for it. From ordinary
    memory the processor would wait until the copy is done.
    """
    if torch.device(device).type != "cuda" or x.device.type != "cpu" or x.requires_grad:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
