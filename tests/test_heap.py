"""Memory that tensors free: kept for the next ones, and given back when asked for."""

from __future__ import annotations

import platform
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from vlmlab.heap import keep_freed_memory, return_freed_memory

resource = pytest.importorskip("resource", reason="Windows has no count of page faults")


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident_mb() -> float:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * resource.getpagesize() / 2**20


def of_steps(keep: bool) -> tuple[int, float]:
    """(page faults of three steps through convolutions, MiB that were then given back), in a process that did nothing before."""
    torch.set_num_threads(1)
    if keep:
        assert keep_freed_memory()
    layers = [layer for n in (3, 24, 24, 24) for layer in (nn.Conv2d(n, 24, 3), nn.ReLU())]
    tower, pictures = nn.Sequential(*layers), torch.zeros(8, 3, 224, 224, requires_grad=True)

    def step() -> None:
        tower(pictures).sum().backward()

    step(), step()
    before = faults()
    for _ in range(3):
        step()
    fetched, kept = faults() - before, resident_mb()
    return_freed_memory()
    return fetched, kept - resident_mb()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again_and_given_back_when_asked_for():
    processes = get_context("spawn")
    with processes.Pool(1) as plain, processes.Pool(1) as keeping:
        (returned, _), (kept, given_back) = plain.apply(of_steps, (False,)), keeping.apply(of_steps, (True,))
    assert kept < returned / 4, "blocks are used again instead of being fetched page by page"
    assert given_back > 100
