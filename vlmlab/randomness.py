"""Random numbers that belong to whoever draws them.

PyTorch has one random generator per process and device, and a page full of live panels has several threads. Whoever seeds
the one generator, or saves it and puts it back, changes what all others draw in the meantime. Here a block of code draws
from generators of its own:

    with LocalRandom(seed):
        layer = nn.Linear(8, 8)             # the same numbers as after torch.manual_seed(seed),
        noise = torch.randn(3)              # and the process' own generator was not touched

It holds for the thread that entered the block and for no other, for everything that draws in PyTorch (its layers' first
values, dropout, distributions, torchvision's transforms) and for every device. Who passes `generator=` gets that one. NumPy
and Python have no part in it: vlmlab gives them generators of their own wherever it draws (tests hold it to that).
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vlmlab.errors import VlmlabError

DRAWING = frozenset(
    """
    bernoulli bernoulli_ binomial cauchy cauchy_ exponential exponential_ geometric geometric_ log_normal log_normal_
    multinomial normal normal_ poisson rand rand_like randint randint_like randn randn_like random_ randperm uniform_
    _sample_dirichlet _standard_gamma _fused_dropout native_dropout rrelu_with_noise rrelu_with_noise_
    dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout feature_dropout_
    feature_alpha_dropout feature_alpha_dropout_ rrelu rrelu_ gumbel_softmax
    fractional_max_pool2d fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices
    multi_head_attention_forward scaled_dot_product_attention lstm gru rnn_tanh rnn_relu
    trunc_normal_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ orthogonal_ sparse_
    """.split()
)
"""Functions and tensor methods that draw, or may."""

_WITH_GENERATOR = {
    "default": "generator",
    "out": "generator_out",
    "low": "low_generator",
    "low_out": "low_generator_out",
    "low_dtype": "low_generator_dtype",
    "low_dtype_out": "low_generator_dtype_out",
    "Tensor": "Tensor_generator",
    "Tensor_out": "Tensor_generator_out",
}
"""Variant of an operator that takes no generator -> the one that does."""


class _Here(threading.local):
    drawing = (
        False  # whether this thread is inside of a function that draws, so that a block further out leaves it alone
    )


_here = _Here()


class LocalRandom(TorchFunctionMode):
    """A context manager: inside, and in this thread, all of PyTorch draws from generators of its own.

    A GPU gets a generator of its own with the same seed, as `torch.manual_seed` does. The object may be entered again, and
    goes on where it stopped; an inner block hides an outer one.

    Raises `VlmlabError` inside for the few operators that cannot be given a generator (attention with dropout and recurrent
    layers with dropout, both on a GPU).
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = int(seed)
        self._generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """What this object draws from on a device."""
        device = torch.device(device)
        if device.type == "cuda" and not torch.cuda.is_available():
            device = torch.device("cpu")  # a GPU that a test pretends to have; its tensors lie in ordinary memory
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in DRAWING or _here.drawing or _never_draws(func, args, kwargs):
            return func(*args, **kwargs)
        _here.drawing = True
        try:
            with _PassGenerator(self):
                return func(*args, **kwargs)
        finally:
            _here.drawing = False


class _PassGenerator(TorchDispatchMode):
    """Hands a generator to the operators that draw, whichever function of PyTorch they are called from."""

    def __init__(self, random: LocalRandom) -> None:
        super().__init__()
        self.random = random

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or any(isinstance(a, torch.Generator) for a in args):
            return func(*args, **kwargs)
        device = next((a.device for a in args if isinstance(a, Tensor)), kwargs.get("device"))
        device = torch.get_default_device() if device is None else torch.device(device)
        if device.type == "meta":  # shapes without numbers
            return func(*args, **kwargs)
        generator = self.random.generator(device)
        if func is torch.ops.aten.native_dropout.default:
            return _dropout(*args, generator=generator)
        takes = _taking_generator(func)
        if kwargs.get("generator") is None:
            kwargs["generator"] = generator
        return takes(*args, **kwargs)


def _never_draws(func, args: tuple, kwargs: dict) -> bool:
    """Whether it is attention without dropout, which stays on its fast road."""
    if func.__name__ != "scaled_dot_product_attention":
        return False
    return not (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))


def _taking_generator(func):
    """The variant of an operator that takes a generator; `VlmlabError` if there is none."""
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return func
    packet, wanted = func.overloadpacket, _WITH_GENERATOR.get(func._overloadname)
    if wanted not in packet.overloads():
        raise VlmlabError(
            f"{packet.__name__} draws random numbers and takes no generator, so they could not be repeated; "
            "set its dropout to 0, or apply dropout beside it"
        )
    return getattr(packet, wanted)


def _dropout(x: Tensor, p: float, train: bool | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a GPU does at once: (x with a share p set to 0 and the rest scaled by 1 / (1 - p), which were kept)."""
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = torch.empty_like(x).bernoulli_(1 - p, generator=generator)
    return x * kept / (1 - p) if p < 1 else x * 0, kept.bool()
