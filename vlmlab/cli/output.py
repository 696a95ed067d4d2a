"""What a command says: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO


@contextlib.contextmanager
def work() -> Iterator[None]:
    """Whatever is printed within goes to standard error: libraries must not mix their lines with the result.

    Our own warnings are lines like any other; those of libraries stay as they are.
    """
    import warnings

    ordinary = warnings.showwarning

    def tell(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if Path(__file__).parents[1] in Path(filename).parents:
            say(f"vlmlab: {message}")
        else:
            ordinary(message, category, filename, lineno, file, line)

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = tell
        yield


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: what is not a number becomes null, since JSON has no NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def show(rows: list[dict], json_: bool, columns: Sequence[str] | None = None) -> None:
    """Rows as JSON, or some of their columns as a table."""
    if json_:
        return print_json(rows)
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    heads = [name.replace("_", " ") for name in columns]
    cells = [heads, *([short(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {short(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(short, value))
    return "" if value is None else str(value)
