"""A CUDA GPU that is not there: tensors that say they live on cuda:0, computed on the CPU.

    with pretended_gpu() as gpu:
        backbone = load_backbone("micro-vit", device="cuda")
        ...
    assert gpu.autocast == {torch.bfloat16}

What mixes the two devices raises `Mixed`, as it would on a real one, so that tensors left on the wrong device are found on
any machine. Allowed is what CUDA allows: 0-d CPU tensors beside GPU tensors, CPU indices into GPU tensors, copies between
the two. It counts how often the CPU waits for the GPU (`gpu.waits`), and notes the precisions that autocast was entered
with. It says nothing of speed, memory, kernels, or numbers in bfloat16: everything is computed in float32.

Two layers see to it. `_Device`, a dispatch mode, sees every operator and unwraps the tensors. `_Moves`, a function mode, sees
the calls that C++ would settle for the real device before any operator runs: `.to`, `.cpu`, `torch.tensor(..., device=...)`.
Both hold for one thread, so threads that start meanwhile enter them as well.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
ASKS = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
"""Operators whose answer is a Python value, for which the CPU waits."""
COUNTS = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default}
"""Operators whose result has a size that only the GPU knows; the CPU waits for it."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


NO_BACKWARD = -1
"""What PyTorch calls the backward pass that runs, if none does. In one, autograd makes zeros on the device that C++ sees."""


class Mixed(RuntimeError):
    """Tensors of the CPU and of the pretended GPU met in one operator."""


class GpuTensor(Tensor):
    """A tensor that says it lives on cuda:0; `inner` is the CPU tensor with its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor):
        # C++ sees a CPU tensor: with the device of a GPU it would look for a driver.
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        if not isinstance(new, GpuTensor) or new.shape != self.shape or new.dtype != self.dtype:
            raise Mixed(f"a tensor on cuda:0 was given the data of {tuple(new.shape)} {new.dtype} on {new.device}")
        self.inner = new.inner.detach()

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return GpuTensor(inner["inner"])

    def __reduce_ex__(self, protocol):
        """Saved as its numbers: read with map_location="cpu", a saved GPU tensor is a CPU tensor."""
        return self.inner.detach().__reduce_ex__(protocol)

    def __repr__(self, **how: Any) -> str:
        return f"{self.inner!r}, on a pretended GPU"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.numpy:
            raise Mixed("numpy() of a tensor on cuda:0; copy it to the CPU first")
        if func is Tensor.tolist:
            _wait()
            return args[0].inner.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class PretendedGpu:
    """What happened: `waits`, how often the CPU waited for an answer; `pinned`, how many tensors were pinned, to be copied without
    one; `autocast`, the precisions it was entered with."""

    def __init__(self) -> None:
        self.waits = self.pinned = 0
        self.autocast: set[torch.dtype] = set()


_now: PretendedGpu | None = None


def _wait() -> None:
    if _now is not None:
        _now.waits += 1


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _computed(func, args: tuple, kwargs: dict) -> Any:
    """The operator on the numbers inside, its result wrapped where a GPU would have it; raises `Mixed`."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [t for t in tensors if isinstance(t, GpuTensor)]
    here = [t for t in tensors if not isinstance(t, GpuTensor)]
    asked = kwargs.get("device")
    result_there = bool(there) if asked is None else _is_gpu(asked)
    if func is aten.copy_.default:
        result_there = isinstance(args[0], GpuTensor)
    elif func not in COPIES and there and torch._C._current_graph_task_id() == NO_BACKWARD:
        indices = here if func.overloadpacket in INDEXING and isinstance(args[0], GpuTensor) else []
        wrong = [t for t in here if t.dim() > 0 and not any(t is index for index in indices)]
        if wrong:
            shapes = [tuple(t.shape) for t in there], [tuple(t.shape) for t in wrong]
            raise Mixed(f"{func}: {shapes[0]} on cuda:0 with {shapes[1]} on cpu")
    if func is aten._to_copy.default and there and not result_there:
        _wait()
    if there and (func in ASKS or func in COUNTS):
        _wait()

    def inside(leaf: Any) -> Any:
        return leaf.inner if isinstance(leaf, GpuTensor) else leaf

    plain_args, plain = tree_map(inside, args), tree_map(inside, kwargs)
    if _is_gpu(plain.get("device")):
        plain["device"] = CPU
    if "pin_memory" in plain:
        plain["pin_memory"] = False
    out = func(*plain_args, **plain)
    if func in ASKS or not result_there:
        return out
    wrapped = tree_map(lambda t: GpuTensor(t) if isinstance(t, Tensor) and not isinstance(t, GpuTensor) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Up(torch.autograd.Function):
    """To the GPU; the gradient comes back to the CPU."""

    @staticmethod
    def forward(ctx, x):
        return GpuTensor(x.detach().clone())

    @staticmethod
    def backward(ctx, gradient):
        return gradient.inner if isinstance(gradient, GpuTensor) else gradient


class _Down(torch.autograd.Function):
    """To the CPU; the gradient goes back to the GPU."""

    @staticmethod
    def forward(ctx, x):
        return x.inner.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if isinstance(gradient, GpuTensor) else GpuTensor(gradient)


CONSTRUCTORS = {torch.tensor, torch.as_tensor, torch.asarray}
BUILT_IN_CPP = {torch.nn.functional.one_hot, torch.sparse_coo_tensor}
"""Functions that make a tensor on the device that C++ sees, which is the CPU."""


class _Moves(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in CONSTRUCTORS:
            return self._constructed(func, args, kwargs)
        if func in BUILT_IN_CPP and any(isinstance(value, GpuTensor) for value in args):
            made = func(*(value.inner if isinstance(value, GpuTensor) else value for value in args), **kwargs)
            return GpuTensor(made.to_dense() if made.is_sparse else made)
        name = getattr(func, "__name__", "")
        if name == "coalesce" and isinstance(args[0], GpuTensor):
            return args[0]
        if name == "pin_memory" and isinstance(args[0], Tensor):
            if isinstance(args[0], GpuTensor):
                raise Mixed("pin_memory() of a tensor on cuda:0; only tensors of the CPU can be pinned")
            if _now is not None:
                _now.pinned += 1
            return args[0].clone()
        if name in ("to", "cpu", "cuda", "type_as") and args and isinstance(args[0], Tensor):
            return self._moved(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _constructed(self, func, args: tuple, kwargs: dict) -> Tensor:
        content, *rest = args
        if isinstance(content, (list, tuple)):  # of numbers, some of which may be 0-d tensors
            content = tree_map(lambda v: v.item() if isinstance(v, Tensor) and v.dim() == 0 else v, content)
        target = kwargs.pop("device", None)
        made = func(content, *rest, **kwargs)
        return made if target is None else self._moved(Tensor.to, "to", (made, target), {})

    def _moved(self, func, name: str, args: tuple, kwargs: dict) -> Tensor:
        x, *rest = args
        target = {"cpu": CPU, "cuda": GPU}.get(name) or kwargs.get("device")
        dtype = kwargs.get("dtype")
        for value in rest:
            if isinstance(value, Tensor):
                target, dtype = value.device, value.dtype
            elif isinstance(value, (str, torch.device)):
                target = value
            elif isinstance(value, torch.dtype):
                dtype = value
        if target is None:
            return func(x, *rest, **kwargs)
        if _is_gpu(target) and not isinstance(x, GpuTensor):
            x = _Up.apply(x)
        elif not _is_gpu(target) and isinstance(x, GpuTensor):
            _wait()
            x = _Down.apply(x)
        return x.to(dtype=dtype) if dtype is not None and x.dtype != dtype else x


def _lift_gradients(optimizer, args, kwargs) -> None:
    """Autograd makes some gradients by itself, on the device that C++ sees; they belong on that of their parameter."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if isinstance(parameter, GpuTensor) and parameter.grad is not None:
                if not isinstance(parameter.grad, GpuTensor):
                    parameter.grad = GpuTensor(parameter.grad)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Within the block, device "cuda" is a pretended GPU, in this thread and in those that it starts.

    Raises `Mixed` inside where tensors of both devices meet. `torch.cuda.is_available()` says no, as it is: name the device.
    """
    global _now
    gpu = PretendedGpu()
    run = threading.Thread.run

    class Autocast(torch.autocast):
        """Notes what it was asked for, and computes in float32."""

        def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True, **more: Any):
            if device_type == "cuda" and enabled and dtype is not None:
                gpu.autocast.add(dtype)
            super().__init__("cpu", enabled=False)

    def run_there(thread: threading.Thread) -> None:
        with _Device(), _Moves():
            run(thread)

    hook = register_optimizer_step_pre_hook(_lift_gradients)
    nothing = patch.multiple(
        torch.cuda,
        _lazy_init=lambda: None,
        current_device=lambda: 0,
        synchronize=lambda *device: None,
        is_bf16_supported=lambda *more: False,  # so that a backbone stays in float32
        get_device_name=lambda *device: "a pretended GPU",
        reset_peak_memory_stats=lambda *device: None,
        max_memory_allocated=lambda *device: 0,
    )
    try:
        with nothing, patch.object(torch, "autocast", Autocast), patch.object(threading.Thread, "run", run_there):
            _now = gpu
            with _Device(), _Moves():
                yield gpu
    finally:
        _now = None
        hook.remove()
