"""Where vlmlab's files are, and how they are written so that a kill in the middle loses nothing."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.machinery
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmlab.errors import VlmlabError

LEFTOVER = 3600  # seconds after which no write is under way any more


def shipped(folder: str) -> Path:
    """`data/` or `notebooks/`: at the top of a checkout, inside the package where it was installed from a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def installed() -> bool:
    """Whether this package was installed from a wheel, so that its folders belong to the environment."""
    return (Path(__file__).resolve().parent / "notebooks").is_dir()


def data_path(*parts: str) -> Path:
    """A file of the project's `data/` folder; the environment variable VLMLAB_DATA names another folder.

    Raises `VlmlabError` if there is no such folder (the package was copied without its data).
    """
    folder = Path(os.environ.get("VLMLAB_DATA") or shipped("data"))
    if not folder.is_dir():
        raise VlmlabError(
            f"the folder {folder} with vlmlab's embedded data is missing; set VLMLAB_DATA to a copy of data/"
        )
    return folder.joinpath(*parts)


def cache_path(*parts: str) -> Path:
    """A path under the user's cache; not created.

    The cache is VLMLAB_CACHE, else XDG_CACHE_HOME/vlmlab, else ~/.cache/vlmlab; for a user without a home folder, a folder
    of their own among the temporary files.
    """
    base = os.environ.get("VLMLAB_CACHE")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "vlmlab")
    place = expanded(base)
    if str(place).startswith("~"):  # a user without a home folder, as in a container that runs under a bare number
        place = Path(tempfile.gettempdir(), f"vlmlab-{os.getuid() if hasattr(os, 'getuid') else 'cache'}")
    return place.joinpath(*parts)


def expanded(path: Path | str) -> Path:
    """`path` with ~ replaced by the home folder, where there is one; never an error."""
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Processes that are started within do not run the caller's script again, as Python's "spawn" does otherwise.

    Workers need nothing from it; a script without `if __name__ == "__main__":` would start workers without end. multiprocessing
    leaves a main module alone whose spec says that it is called "__main__".
    """
    main = sys.modules["__main__"]
    before = getattr(main, "__spec__", None)
    main.__spec__ = importlib.machinery.ModuleSpec("__main__", None)
    try:
        yield
    finally:
        main.__spec__ = before


def write_atomically(path: Path | str, content: bytes | str) -> Path:
    """Write `content` so that `path` holds either its old content or all of the new, whatever happens in between.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is renamed over `path`.
    Raises `VlmlabError` in one line if the folder cannot be written or the disk is full; nothing is left behind then.
    """
    path = Path(path)
    # A file name that is no UTF-8 is written as \udce9, which JSON reads back.
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            # mkstemp makes the file private; the result should be as readable as any file that the user makes.
            os.fchmod(stream.fileno(), 0o666 & ~_umask())
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def read_lines(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file that a study adds to; none if it is not there yet.

    Raises `VlmlabError` for a file with other columns.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise VlmlabError(f"{path} does not have the columns of this study; name another file with --out")
        return list(reader)


def write_lines(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """All lines of such a file at once; a column that a line lacks stays empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(path, stream.getvalue())


def is_one_path(text: str) -> bool:
    """Whether a text with commas in it is no list but the path of something that exists, perhaps after ARCH@."""
    return "," in text and any(
        os.path.exists(os.path.expanduser(name)) for name in (text.strip(), text.partition("@")[2].strip()) if name
    )


def files_identity(paths: Iterable[Path]) -> str:
    """Hash over the path, size and time of change of files, 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
            version = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError:  # a link to nothing, a folder without rights: found broken when it is read
            version = "unreadable"
        digest.update(f"{path}\0{version}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def must_be_writable(folder: Path | str, room: int = 0) -> None:
    """Raise `VlmlabError` unless a file of `room` bytes can be written in `folder`, which is made if it is missing.

    Tried, because access rights alone do not tell (a full disk, a read-only mount, a file in the way); with a file
    that has no name where the system knows such files, so that a kill leaves nothing.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * room)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise _cannot_write(folder, error) from error


def remove_leftovers(folder: Path | str) -> None:
    """Remove what writers that were killed have left in `folder`: temporary files of `write_atomically`, an hour old."""
    for left in Path(folder).glob(".*.tmp"):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            if time.time() - left.stat().st_mtime > LEFTOVER:
                left.unlink()


def _cannot_write(path: Path | str, error: OSError) -> VlmlabError:
    return VlmlabError(
        f"cannot write {path}: {error.strerror or error}; choose a folder with room that you may write to"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verified(path: Path | str, expected: str, remedy: str) -> Path:
    """`path`, after its SHA-256 was found equal to the pinned `expected`; `remedy` says what to do if it was not.

    Raises `VlmlabError` if the file is missing or its bytes are others.
    """
    path = Path(path)
    if not path.is_file():
        raise VlmlabError(f"{path} is missing; {remedy}")
    found = sha256(path)
    if found != expected:
        raise VlmlabError(
            f"{path} is not the file that vlmlab pins (SHA-256 {found[:12]}..., expected {expected[:12]}...); {remedy}"
        )
    return path
