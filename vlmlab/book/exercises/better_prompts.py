"""Exercises of chapter 6.1a, better prompts for the same classes."""

from __future__ import annotations

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, number, same_shape


def sinkhorn(similarity, eps, steps):
    places, prompts = similarity.shape
    kernel = (-(1 - similarity) / eps).exp()  # K [P, N]
    q = torch.ones(prompts)
    for _ in range(steps):
        r = (1 / places) / (kernel @ q)  # [P]
        q = (1 / prompts) / (kernel.T @ r)  # [N]
    return r[:, None] * kernel * q[None, :]


@exercise(
    "06_1a.sinkhorn",
    solution=sinkhorn,
    hints=(
        "Start with q of ones, [N]. In every step r makes the rows of diag(r) K diag(q) sum to 1/P, then q makes its columns sum to 1/N.",
        "The row sums of diag(r) K diag(q) are r (K q), so r = (1/P) / (K q); by the same reasoning q = (1/N) / (Kᵀ r).",
    ),
    seen="Two divisions per step, and each destroys a little of what the other had put right; they agree in the end. With a small ε the plan is "
    "greedy and needs many steps, with a large one it is almost even after two.",
)
def _sinkhorn(answer) -> None:
    similarity = torch.rand(6, 4, generator=generator(1))
    expected = sinkhorn(similarity, 0.1, 200)
    given = same_shape(ask(answer, similarity, 0.1, 200), expected, "[P, N]").detach()
    if not torch.isfinite(given).all() or (given < 0).any():
        raise Wrong(
            "a plan has no negative entries and no infinities; the kernel is exp(−(1 − S)/ε), which is positive."
        )
    if not torch.allclose(given.sum(0), torch.full((4,), 1 / 4), atol=1e-3):
        raise Wrong(f"the columns sum to {given.sum(0).tolist()}; every prompt should get 1/N = 0.25 (2).")
    if not torch.allclose(given.sum(1), torch.full((6,), 1 / 6), atol=1e-3):
        raise Wrong(f"the rows sum to {given.sum(1).tolist()}; every place has 1/P to give away (2).")
    if torch.allclose(given, sinkhorn(1 - similarity, 0.1, 200), atol=1e-3):
        raise Wrong("the plan avoids what fits: the cost is 1 − S, so that K = exp(−(1 − S)/ε).")
    close(given, expected, "compare the kernel exp(−(1 − S)/ε), and the number of steps, with (2).", 1e-3)
    few = "the plan after two steps is another one: take as many as `steps` says, rows first, then columns."
    close(same_shape(ask(answer, similarity, 0.1, 2), expected, "[P, N]"), sinkhorn(similarity, 0.1, 2), few, 1e-3)


def aligned(a, b):
    u = b / b.norm()
    along = (a * u).sum()
    return a - along * u if along < 0 else a


@exercise(
    "06_1a.aligned",
    solution=aligned,
    hints=(
        "Only the direction of b matters: u = b / |b|. The part of a along u is (a · u) u.",
        "If a · u is negative, subtract that part, and what is left is orthogonal to b. Otherwise nothing has to be done.",
    ),
    seen="What is left never points against b: a small step along it does not raise the second loss, to first order. Where the two agree, "
    "ProGrad is CoOp.",
)
def _aligned(answer) -> None:
    a, b = torch.randn(12, generator=generator(2)), 3 * torch.randn(12, generator=generator(3))
    b = b if a @ b < 0 else -b
    expected = aligned(a, b)
    given = same_shape(ask(answer, a, b), expected, "of the gradient")
    if torch.allclose(given, a, atol=1e-5):
        raise Wrong("here a · b is negative, and a came back as it was: its part along b has to go (6).")
    if torch.allclose(given, a - (a @ b) * b, atol=1e-4):
        raise Wrong("b has not unit length: divide it by its norm first (6).")
    if torch.allclose(given, a + (a @ b) / (b @ b) * b, atol=1e-4):
        raise Wrong("the opposing part was added once more: subtract it (6).")
    if torch.allclose(given, (a @ b) / (b @ b) * b, atol=1e-4):
        raise Wrong("that is the opposing part itself; keep the rest of a (6).")
    close(given, expected, "compare with (6).")
    same = ask(answer, a, -b)
    if not torch.allclose(same, a, atol=1e-5):
        raise Wrong("for a · b > 0 the gradient must stay as it is; yours changes it.")
    context = ask(answer, a.view(3, 4), b.view(3, 4))  # the gradient of a context has two axes
    if not isinstance(context, torch.Tensor) or not torch.allclose(context, expected.view(3, 4), atol=1e-5):
        raise Wrong("for a context [M, d] it is another number: sum over all entries, as in (a * u).sum().")


def inside(g, path, rank):
    centred = path - path.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    u = directions[:rank]  # U [r, n]
    return u.T @ (u @ g)


@exercise(
    "06_1a.subspace",
    solution=inside,
    hints=(
        "Centre the rows of the path, and take the first right singular vectors as the rows of U: `torch.linalg.svd(...)[2][:rank]`.",
        "U g are the r coordinates of g in the subspace; Uᵀ (U g) is the vector of the full space that has them.",
    ),
    seen="Project twice and nothing changes any more: that is what makes it a projection. Of thousands of numbers only r can still move, in "
    "directions that the first epochs chose.",
)
def _subspace(answer) -> None:
    path = 4 + torch.randn(7, 20, generator=generator(4)).cumsum(0)
    g = torch.randn(20, generator=generator(5))
    expected = inside(g, path, 3)
    given = ask(answer, g, path, 3)
    if isinstance(given, torch.Tensor) and given.shape == (3,):
        raise Wrong("these are the r coordinates U g; go back into the full space with Uᵀ (4).")
    given = same_shape(given, expected, "[n], that of the gradient")
    raw = torch.linalg.svd(path, full_matrices=False)[2][:3]
    if torch.allclose(given, raw.T @ (raw @ g), atol=1e-4):
        raise Wrong("the path was not centred: its mean is where it lies, not where it went (3).")
    if torch.allclose(given, g - expected, atol=1e-4):
        raise Wrong("that is what lies outside of the subspace: keep the part inside (4).")
    close(given, expected, "compare with (3) and (4): the rows of U are orthonormal, and r of them are kept.")


def paired(ours, theirs):
    difference = ours - theirs
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


@exercise(
    "06_1a.paired",
    solution=paired,
    hints=(
        "Both systems ran with the same seeds, that is on the same support images: first the difference of every pair, then its mean.",
        "The standard error of a mean of n numbers is their standard deviation (`ddof=1`) divided by √n.",
    ),
    seen="Support sets differ from one another more than systems do; in the differences of pairs that cancels. A difference of less than two "
    "standard errors is no result, whatever the means say.",
)
def _paired(answer) -> None:
    import numpy as np

    ours, theirs = np.array([71.0, 64.0, 80.0, 69.0]), np.array([69.5, 63.0, 77.0, 68.5])
    expected = paired(ours, theirs)
    given = ask(answer, ours, theirs)
    if not isinstance(given, tuple | list | np.ndarray) or len(given) != 2:
        raise Wrong("two numbers are wanted: the mean difference and its standard error.")
    mean, error = (number(float(one) if isinstance(one, np.floating) else one, -100, 100, "points") for one in given)
    if abs(mean + expected[0]) < 1e-6:
        raise Wrong("the sign is the other way round: ours minus theirs.")
    if abs(mean - expected[0]) > 1e-6:
        raise Wrong(f"the mean of the differences is not {mean:g}: subtract pair by pair, then take the mean.")
    if abs(error - float((ours - theirs).std(ddof=1))) < 1e-6:
        raise Wrong("that is the standard deviation of the differences; the error of their mean is smaller by √n.")
    if abs(error - float((ours - theirs).std()) / 2) < 1e-6:
        raise Wrong("with n instead of n − 1 the spread of four numbers is underrated: `ddof=1`.")
    unpaired = float((ours.var(ddof=1) / 4 + theirs.var(ddof=1) / 4) ** 0.5)
    if abs(error - unpaired) < 1e-6:
        raise Wrong(
            "that is the error for two independent groups; these are pairs, so take the spread of the differences."
        )
    if abs(error - expected[1]) > 1e-6:
        raise Wrong(f"{error:g} is not the standard error of the mean difference.")
