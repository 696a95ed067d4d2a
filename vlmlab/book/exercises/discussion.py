"""Exercises of chapter 6.6, discussion."""

from __future__ import annotations

from numbers import Real

import torch

from vlmlab.book.exercise import Wrong, ask, close, exercise, generator, same_shape


def paired(a, b):
    differences = (a - b).mean(1)  # per dataset, over the seeds (2)
    return differences.mean(), differences.std() / len(differences) ** 0.5


@exercise(
    "06_6.paired",
    solution=paired,
    hints=(
        "Both systems saw the same datasets. Take the difference on each dataset first, averaged over the seeds; then ask how much these "
        "differences vary.",
        "`(a - b).mean(1)` has one number per dataset. Its mean is the answer, and its standard deviation divided by the root of the number of "
        "datasets is the standard error.",
    ),
    seen="What the two systems share, an easy dataset, a hard one, is gone from the difference. Compared without pairing, the same numbers have "
    "an error several times as large, and one sees nothing.",
)
def _paired(answer) -> None:
    hard = 30 * torch.randn(6, 1, generator=generator(1)) + 60
    a = hard + 2 + torch.randn(6, 3, generator=generator(2))
    b = hard + torch.randn(6, 3, generator=generator(3))
    given = ask(answer, a, b)
    pair = isinstance(given, tuple | list) or (isinstance(given, torch.Tensor) and given.ndim == 1)
    two = list(given) if pair and len(given) == 2 else ()
    if not two or not all(isinstance(one, Real) or (isinstance(one, torch.Tensor) and one.ndim == 0) for one in two):
        raise Wrong("two numbers are wanted: the mean difference and its standard error.")
    mean, error = (torch.as_tensor(one, dtype=torch.float32) for one in two)
    right_mean, right_error = paired(a, b)
    if torch.allclose(mean, -right_mean, atol=1e-4):
        raise Wrong("the sign is turned round: positive should mean that the first system is better.")
    close(same_shape(mean, right_mean, "[]"), right_mean, "the mean of the differences, first minus second.")
    unpaired = (a.mean(1).var() / 6 + b.mean(1).var() / 6).sqrt()
    if torch.allclose(error, unpaired, rtol=1e-3):
        raise Wrong(
            "this error is of two separate means, with all that the datasets differ in. Take the differences first."
        )
    if torch.allclose(error, right_error * 6**0.5, rtol=1e-3):
        raise Wrong(
            "this is the standard deviation of the differences; the mean of 6 of them is known better, by the root of 6."
        )
    if torch.allclose(error, right_error * (5 / 6) ** 0.5, rtol=1e-3):
        raise Wrong(
            "the standard deviation is that of a sample: its sum of squares is divided by 6 - 1, as torch does."
        )
    flat = (a - b).flatten()
    if torch.allclose(error, flat.std() / len(flat) ** 0.5, rtol=1e-3):
        raise Wrong("seeds of one dataset are no new datasets: average over them first.")
    close(
        same_shape(error, right_error, "[]"),
        right_error,
        "see (2): differences per dataset, then their standard error.",
    )


def unbeaten(cost, accuracy):
    no_dearer = cost[None] <= cost[:, None]  # [i, j]: j costs no more than i
    no_worse = accuracy[None] >= accuracy[:, None]
    strictly = (cost[None] < cost[:, None]) | (accuracy[None] > accuracy[:, None])
    return ~(no_dearer & no_worse & strictly).any(1)  # (3)


@exercise(
    "06_6.frontier",
    solution=unbeaten,
    hints=(
        "System j beats system i if it costs no more and is no worse, and is strictly better in one of the two. Keep who is beaten by nobody.",
        "Compare all pairs at once: `cost[None] <= cost[:, None]` is a table [i, j]. Three such tables make one, and `.any(1)` asks per row.",
    ),
    seen="Whoever is off this line should not be chosen for accuracy and this cost together; there may be a third reason, and then the line "
    "must be drawn with it.",
)
def _frontier(answer) -> None:
    cases = (
        ([1.0, 2.0, 3.0, 2.0], [50.0, 60.0, 55.0, 70.0]),
        ([1.0, 1.0, 5.0], [50.0, 50.0, 90.0]),
        ([4.0, 4.0, 1.0], [80.0, 70.0, 80.0]),
    )
    for cost, accuracy in cases:
        cost, accuracy = torch.tensor(cost), torch.tensor(accuracy)
        expected = unbeaten(cost, accuracy)
        given = same_shape(ask(answer, cost, accuracy), expected, "[systems]").bool()
        if not given.any():
            raise Wrong(
                "nobody is left: each system beats itself here. To beat, one must be strictly better in cost or accuracy."
            )
        if torch.equal(cost, torch.tensor([1.0, 1.0, 5.0])) and not given[:2].any():
            raise Wrong(
                "two equal systems beat each other here: to beat, one must be strictly better in cost or accuracy."
            )
        if torch.equal(given, unbeaten(-cost, accuracy)) and not torch.equal(given, expected):
            raise Wrong("expensive systems are preferred here: a smaller cost is better.")
        if not torch.equal(given, expected):
            raise Wrong(
                f"for costs {cost.tolist()} and accuracies {accuracy.tolist()} it should be {expected.tolist()}, and it is {given.tolist()}."
            )


def mean_rank(accuracy):
    return (accuracy[None] > accuracy[:, None]).sum(1).float().mean(1) + 1  # (1)


@exercise(
    "06_6.ranks",
    solution=mean_rank,
    hints=(
        "On one dataset, the rank of a system is one more than the number of systems that are better there. Then average over the datasets.",
        "`accuracy[None] > accuracy[:, None]` is [i, j, dataset]: whether j is better than i. Sum over j, add 1, mean over the datasets.",
    ),
    seen="A rank does not care by how much. Where accuracies of one dataset spread over sixty points and those of another over two, the mean "
    "accuracy is the first dataset's opinion, and the mean rank hears both.",
)
def _ranks(answer) -> None:
    accuracy = torch.tensor([[90.0, 40.0, 70.0, 81.0], [80.0, 50.0, 60.0, 81.0], [95.0, 60.0, 65.0, 70.0]])
    expected = mean_rank(accuracy)
    given = same_shape(ask(answer, accuracy), expected, "[systems]").float()
    if torch.allclose(given, mean_rank(-accuracy)):
        raise Wrong("rank 1 is the worst here: the best system of a dataset should have it.")
    if torch.allclose(given, expected - 1):
        raise Wrong("the best has rank 0 here; ranks begin with 1.")
    if torch.allclose(given, expected * 4):
        raise Wrong("these are sums of ranks over the datasets; (1) has their mean.")
    if given[2] == expected[2] and (given[:2] >= expected[:2]).all() and not torch.equal(given, expected):
        raise Wrong(
            "on the last dataset two systems are equally good: nobody is better than they, so both have rank 1."
        )
    close(given, expected, "count, on every dataset, how many systems are better.")
