"""Exercises that check themselves, without a network and without giving the answer away.

An exercise stands in a file of `vlmlab/book/exercises/`: its solution, an examination of an answer, and two hints. A
chapter has the text, a stub, and `check("06_4.vote", vote)`, which says what is wrong (a shape, a range, an equation)
and offers the hints and the solution, folded. The tests run every solution through the same examination.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import numbers
import pkgutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlmlab.errors import unknown


class Wrong(Exception):
    """An answer that is not right yet; the text tells the reader what to look at."""


class NotStarted(Exception):
    """The stub is still a stub."""


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        key: "chapter.name", such as "06_4.vote".
        solution: the right answer; of a function, the source is shown.
        hints: two, the second says more.
        seen: what a reader who solved it should now notice.
        examine: raises `Wrong` if an answer is not right; may return what is to be said of this one (by how much it won).
    """

    key: str
    solution: Any
    hints: tuple[str, str]
    seen: str
    examine: Callable[[Any], str | None]

    def solution_text(self, name: str = "") -> str:
        """The solution as Python; a function bears the reader's `name` for it, so that it can take the stub's place."""
        if inspect.isfunction(self.solution):
            text = textwrap.dedent(inspect.getsource(self.solution)).rstrip()
            return text.replace(f"def {self.solution.__name__}(", f"def {name or self.solution.__name__}(", 1)
        return f"{self.key.partition('.')[2]} = {self.solution!r}"


_exercises: dict[str, Exercise] = {}


def exercise(key: str, solution: Any, hints: tuple[str, str], seen: str) -> Callable:
    """Decorator: the function below it examines answers to the exercise `key`."""

    def decorate(examine: Callable[[Any], None]) -> Callable[[Any], None]:
        _exercises[key] = Exercise(key, solution, hints, seen, examine)
        return examine

    return decorate


def exercises(chapter: str = "") -> dict[str, Exercise]:
    """Every exercise of the book by key, or those of one chapter ("06_4").

    Of one chapter alone the files are imported that name it: those of other chapters load models.
    """
    from vlmlab.book import exercises as folder

    for module in pkgutil.iter_modules(folder.__path__):
        name = f"{folder.__name__}.{module.name}"
        if name not in sys.modules and chapter:
            source = pkgutil.get_data(folder.__name__, f"{module.name}.py") or b""
            if f'"{chapter}.' not in source.decode():
                continue
        importlib.import_module(name)
    found = {key: one for key, one in _exercises.items() if not chapter or chapter_of(key) == chapter}
    return dict(sorted(found.items()))


def chapter_of(key: str) -> str:
    """The number of the chapter that an exercise belongs to: "06_4" of "06_4.vote"."""
    return key.partition(".")[0]


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What became of an answer: `state` is "right", "wrong" or "open"."""

    exercise: Exercise
    state: str
    message: str
    name: str = ""
    """What the reader calls the answer, if it is a function."""

    @property
    def passed(self) -> bool:
        return self.state == "right"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        one, two = self.exercise.hints
        parts = [f"**{self._line()}**"] if self.state != "right" else [f"**Right.** {self.message}"]
        parts += [_folded("Hint 1", one), _folded("Hint 2", two)]
        parts.append(_folded("Solution", f"```python\n{self.exercise.solution_text(self.name)}\n```"))
        return {"text/markdown": "\n\n".join(parts), "text/plain": self._line()}

    def _line(self) -> str:
        start = {"right": "Right.", "wrong": "Not yet:", "open": "Not started:"}[self.state]
        return f"{start} {self.message}"

    def __repr__(self) -> str:
        return self._line()


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def check(key: str, answer: Any) -> Feedback:
    """Examine an answer to an exercise; whatever is wrong with it is told, never raised.

    Raises `VlmlabError` for an exercise that does not exist.
    """
    known = exercises(chapter_of(key))
    if key not in known:
        raise unknown("exercise", key, exercises())
    name = answer.__name__ if inspect.isfunction(answer) and answer.__name__.isidentifier() else ""
    state, message = _examined(known[key], answer)
    _given[key] = state
    return Feedback(known[key], state, message, name)


def _examined(one: Exercise, answer: Any) -> tuple[str, str]:
    """State and message of the `Feedback`."""
    try:
        if _empty(answer):
            raise NotStarted
        told = one.examine(answer)
    except NotStarted:
        return "open", "put your answer where the dots are and run this cell again."
    except Wrong as wrong:
        return "wrong", str(wrong)
    return "right", f"{told} {one.seen}" if told else one.seen


_given: dict[str, str] = {}


def given() -> dict[str, str]:
    """What became of the answers that this process has checked: the last state of each exercise, by key."""
    return dict(_given)


# --- what examinations are made of ------------------------------------------------------------------------------------


def ask(function: Any, *arguments: Any) -> Any:
    """What the reader's function gives; `Wrong` tells where it failed, `NotStarted` that it gives nothing yet."""
    if not callable(function):
        raise Wrong(f"the answer should be a function, and this is {_a(function)}.")
    try:
        given = function(*arguments)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"line {last.lineno} (`{last.line}`)" if last.line else "your code"
        raise Wrong(f"{place} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if _empty(given):
        raise NotStarted
    return given


def same_shape(given: Any, expected: Tensor, names: str) -> Tensor:
    """`given` if it is a tensor of the expected shape, in its precision; `names` says what the axes mean, such as "[B, C]".

    Where one number is expected, a Python number is as good as a tensor.
    """
    if expected.ndim == 0 and isinstance(given, numbers.Real) and not isinstance(given, bool):
        given = torch.tensor(given)
    if not isinstance(given, Tensor):
        raise Wrong(f"a tensor {names} is wanted, and this is {_a(given)}.")
    if given.shape != expected.shape:
        raise Wrong(f"the shape should be {names} = {list(expected.shape)}, and it is {list(given.shape)}.")
    return given.to(expected.dtype) if expected.is_floating_point() else given


def close(given: Tensor, expected: Tensor, otherwise: str, tolerance: float = 1e-4) -> None:
    """Raises `Wrong` with the largest difference and the advice `otherwise` if the numbers differ."""
    given, expected = given.detach().float(), expected.detach().float()
    difference = float((given - expected).abs().max())
    if not difference <= tolerance * max(1.0, float(expected.abs().max())):
        raise Wrong(f"the shape is right, the numbers differ by up to {difference:.3g}: {otherwise}")


def number(given: Any, low: float, high: float, unit: str) -> float:
    """`given` as a number between `low` and `high`."""
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, numbers.Real):  # NumPy's numbers, too
        raise Wrong(f"a number is wanted ({unit}), and this is {_a(given)}.")
    if not low <= given <= high:
        raise Wrong(f"{given:g} cannot be: {unit} lies between {low:g} and {high:g}.")
    return float(given)


def generator(seed: int) -> torch.Generator:
    """Random numbers of their own, so that checking an answer disturbs nothing in the chapter."""
    return torch.Generator().manual_seed(seed)


def _a(thing: Any) -> str:
    """What something is, with its article: "an int", "a list"."""
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _empty(answer: Any) -> bool:
    return answer is None or answer is Ellipsis
