"""Random numbers are local: the same as PyTorch's own, in one thread, and nothing else is seeded anywhere."""

from __future__ import annotations

import ast
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from vlmlab import randomness
from vlmlab.errors import VlmlabError
from vlmlab.randomness import DRAWING, LocalRandom

PACKAGE = Path(__file__).resolve().parents[1] / "vlmlab"

X = torch.ones(4, 6)
Q = torch.ones(2, 2, 5, 4)
IMAGE = torch.arange(3 * 20 * 20, dtype=torch.uint8).view(3, 20, 20)

DRAWN = {
    "randn": lambda: torch.randn(3),
    "rand": lambda: torch.rand(5, dtype=torch.float64),
    "randint": lambda: torch.randint(7, (4,)),
    "randint from": lambda: torch.randint(1, 4, ()),
    "randperm": lambda: torch.randperm(9),
    "bernoulli": lambda: torch.bernoulli(0.3 * X),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 4),
    "normal": lambda: torch.normal(0.0, 1.0, (3,)),
    "normal of tensors": lambda: torch.normal(X, X),
    "poisson": lambda: torch.poisson(X),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X),
    "randint_like": lambda: torch.randint_like(X, 2, 5),
    "out": lambda: torch.rand(5, out=torch.empty(5)),
    "in place": lambda: torch.stack(
        [torch.empty(3).normal_(), torch.empty(3).uniform_(), torch.empty(3).bernoulli_(0.5), torch.empty(3).random_(9),
         torch.empty(3).exponential_(), torch.empty(3).geometric_(0.3), torch.empty(3).cauchy_(), torch.empty(3).log_normal_()]
    ),
    "dropout": lambda: F.dropout(X, 0.5),
    "dropout of a module": lambda: nn.Dropout(0.3)(X),
    "dropout in place": lambda: F.dropout(X.clone(), 0.5, inplace=True),
    "dropout of maps": lambda: F.dropout2d(torch.ones(2, 3, 4, 4)),
    "alpha dropout": lambda: F.alpha_dropout(X, 0.5, True),
    "gumbel": lambda: F.gumbel_softmax(X),
    "rrelu": lambda: F.rrelu(-X, training=True),
    "attention with dropout": lambda: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.4),
    "linear": lambda: nn.Linear(3, 4).weight,
    "convolution": lambda: nn.Conv2d(3, 4, 3).bias,
    "embedding": lambda: nn.Embedding(3, 4).weight,
    "attention layer": lambda: nn.MultiheadAttention(8, 2, dropout=0.2)(*[torch.ones(3, 2, 8)] * 3)[0],
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2)(torch.ones(3, 2, 8)),
    "recurrent": lambda: nn.LSTM(3, 4, 2, dropout=0.4)(torch.ones(3, 4, 3))[0],
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(4, 5)),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(4, 5)),
    "sparse": lambda: nn.init.sparse_(torch.empty(4, 5), 0.3),
    "dirichlet": lambda: torch.distributions.Dirichlet(torch.ones(3)).sample(),
    "gamma": lambda: torch.distributions.Gamma(torch.ones(3), 1.0).rsample(),
    "beta": lambda: torch.distributions.Beta(1.0, 2.0).sample((3,)),
    "binomial": lambda: torch.distributions.Binomial(5, torch.tensor(0.3)).sample((3,)),
    "torchvision": lambda: v2.Compose([v2.RandomResizedCrop(9), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4)])(IMAGE),
    "pooling": lambda: F.fractional_max_pool2d(torch.rand(1, 2, 8, 8), 3, output_size=4),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_generator():
    """These tests compare with the process' generator; whoever comes after finds it as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("name", DRAWN)
def test_the_numbers_are_those_that_the_seed_always_gave(name):
    torch.manual_seed(7)
    expected = [DRAWN[name]() for _ in range(3)]
    assert not expected[0].equal(expected[1])
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with LocalRandom(7):
        found = [DRAWN[name]() for _ in range(3)]
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    assert torch.get_rng_state().equal(before)


def test_gradients_see_the_same_dropout():
    def gradient():
        x = X.clone().requires_grad_()
        (F.dropout(x, 0.5) ** 2).sum().backward()
        return x.grad

    torch.manual_seed(3)
    expected = gradient()
    with LocalRandom(3):
        assert gradient().equal(expected)


def test_an_inner_block_hides_the_outer_one_and_a_block_goes_on_where_it_stopped():
    torch.manual_seed(1)
    first, second = torch.rand(3), torch.nn.Linear(2, 2).weight
    outer = LocalRandom(1)
    with outer:
        assert torch.rand(3).equal(first)
        with LocalRandom(1):
            assert torch.rand(3).equal(first)
            assert F.dropout(X).equal(F.dropout(X, 0.0)) is False
    with outer:
        assert torch.nn.Linear(2, 2).weight.equal(second)


def test_a_generator_that_is_passed_is_the_one_that_is_used():
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    with LocalRandom(1):
        assert torch.rand(3, generator=torch.Generator().manual_seed(5)).equal(expected)
        assert torch.empty(3).uniform_(generator=torch.Generator().manual_seed(5)).equal(expected)


def test_a_model_without_numbers_draws_none():
    with LocalRandom(1):
        assert nn.Linear(3, 4, device="meta").weight.shape == (4, 3)
        after = torch.rand(3)
    assert after.equal(torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_threads_do_not_disturb_one_another():
    def draws(seed: int) -> torch.Tensor:
        with LocalRandom(seed):
            return torch.stack([F.dropout(torch.randn(50)) for _ in range(200)])

    alone = [draws(seed) for seed in range(4)]
    start = threading.Barrier(5)

    def together(seed: int) -> torch.Tensor:
        start.wait()
        return draws(seed)

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(together, seed) for seed in range(4)]
        start.wait()
        for k in range(500):  # a cell that seeds the process' generator meanwhile, and draws from it
            torch.manual_seed(k)
            cell = torch.rand(3)
        assert all(a.result().equal(b) for a, b in zip(answers, alone, strict=True))
    torch.manual_seed(499)
    assert cell.equal(torch.rand(3))


def test_every_operator_that_draws_is_known():
    """PyTorch marks its operators; one that a newer version adds is missed here first."""
    drawing = set()
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::") or schema.name.startswith("aten::_no_grad"):
            continue
        operator = getattr(getattr(torch.ops.aten, schema.name[6:]), schema.overload_name or "default")
        if torch.Tag.nondeterministic_seeded in operator.tags:
            drawing.add(schema.name[6:])
    # What nobody calls: parts of attention and of recurrent layers, and functional twins of the methods in place.
    inner = {name for name in drawing if name.startswith("_") and name not in DRAWING} | {
        "normal_functional",
        "miopen_rnn",
    }
    twins = {name for name in drawing if f"{name}_" in DRAWING} | {"rrelu_with_noise_functional"}
    assert drawing - inner - twins <= DRAWING


def test_what_takes_no_generator_is_refused_in_one_line():
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    with pytest.raises(VlmlabError, match="takes no generator") as told:
        randomness._taking_generator(flash)
    assert "\n" not in str(told.value)


def test_the_dropout_of_a_gpu_is_scaled_and_has_its_mask():
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(1.0, 1001.0)
    y, kept = randomness._dropout(x, 0.25, True, generator)
    assert y.equal(torch.where(kept, x / 0.75, 0.0)) and 700 < kept.sum() < 800
    assert randomness._dropout(x, 0.25, False, generator)[0].equal(x)


# --- the lint ---------------------------------------------------------------------------------------------------------

GLOBAL = {"fork_rng", "set_rng_state", "get_rng_state", "set_rng_state_all", "get_rng_state_all", "manual_seed_all",
          "seed_all", "default_generator", "initial_seed"}  # fmt: skip
OWN_NUMPY = {"default_rng", "Generator", "PCG64", "SeedSequence"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def shared_randomness(source: str) -> list[str]:
    """Uses of a random generator that the whole process shares."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = dotted(node) if isinstance(node, ast.Attribute) else ""
        last = name.rpartition(".")[2]
        if last in GLOBAL or (last in ("manual_seed", "seed") and name.startswith("torch.")):
            found.append(f"{node.lineno}: {name}")
        if name.startswith(("np.random.", "numpy.random.")) and name.split(".")[2] not in OWN_NUMPY:
            found.append(f"{node.lineno}: {name}")
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            found.append(f"{node.lineno}: import random")
        if isinstance(node, ast.ImportFrom) and node.module == "random" and [a.name for a in node.names] != ["Random"]:
            found.append(f"{node.lineno}: from random import")
    return found


@pytest.mark.parametrize(
    "line",
    ["torch.manual_seed(0)", "torch.cuda.manual_seed_all(0)", "torch.random.fork_rng()", "np.random.seed(1)",
     "torch.default_generator.manual_seed(1)", "x = torch.get_rng_state()", "np.random.rand(3)", "import random"],
)  # fmt: skip
def test_the_lint_finds_what_it_is_for(line):
    assert shared_randomness(line)
    assert not shared_randomness("torch.Generator().manual_seed(0); np.random.default_rng(0); g.manual_seed(1)")


def test_nothing_in_the_package_draws_from_what_everybody_shares():
    found = {
        str(path.relative_to(PACKAGE)): uses
        for path in sorted(PACKAGE.rglob("*.py"))
        if (uses := shared_randomness(path.read_text(encoding="utf-8")))
    }
    assert not found
