"""What lies in a folder of images, by name: what counts as an image, what tools leave behind, what a table says.

Imports neither torch nor Pillow, so that whoever only has to know which files a dataset is made from answers at once.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from vlmlab.errors import VlmlabError

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif", ".ppm",
    ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".qoi",
})  # fmt: skip
"""Ends of the names of images, in lower case, which Pillow opens on every machine."""
PLUGIN_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".jxl"})
"""Images that Pillow opens if a plug-in (pillow-heif, pillow-jxl-plugin) was imported."""
TABLES = frozenset({".csv", ".tsv"})
COLUMNS = {"file", "label"}

LEFT_BEHIND = frozenset({
    "__MACOSX", "@eaDir", "__pycache__", "lost+found", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini",
})  # fmt: skip
SHOWN_IN_MESSAGES = 3


def is_left_behind(name: str) -> bool:
    """Whether tools leave files or folders of this name behind (.DS_Store, ._IMG.jpg, __MACOSX, @eaDir, Thumbs.db)."""
    return name.startswith(".") or name in LEFT_BEHIND


def is_picture(path: Path | str) -> bool:
    """Whether a file's name says that it is an image, and not a hidden one."""
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def listed(folder: Path) -> list[Path]:
    """What lies in a folder by name, without what tools leave behind; `VlmlabError` if one may not look into it."""
    try:
        return sorted(f for f in folder.iterdir() if not is_left_behind(f.name))
    except OSError as error:
        cannot_look_into(error)


def files_below(place: Path) -> list[Path]:
    """Every file in a folder and the folders in it, links followed, without what tools leave behind; sorted.

    A folder that is reached twice, such as by a link to a folder above it, is looked into once.
    Raises `VlmlabError` that names a folder which may not be looked into.
    """
    seen = {os.path.realpath(place)}
    found = []
    for folder, below, files in os.walk(place, onerror=cannot_look_into, followlinks=True):
        fresh = []
        for name in sorted(below):
            real = os.path.realpath(os.path.join(folder, name))
            if not is_left_behind(name) and real not in seen:
                seen.add(real)
                fresh.append(name)
        below[:] = fresh
        found += [Path(folder, name) for name in files if not is_left_behind(name)]
    return sorted(found)


def cannot_look_into(error: OSError) -> NoReturn:
    folder, reason = error.filename, error.strerror
    raise VlmlabError(f"cannot look into {folder} ({reason}); choose a folder that you may read") from error


def some(names: Sequence[str]) -> str:
    """The first names of a list and how many more there are."""
    shown = ", ".join(names[:SHOWN_IN_MESSAGES])
    return shown + (f" and {len(names) - SHOWN_IN_MESSAGES} more" if len(names) > SHOWN_IN_MESSAGES else "")


def counted(number: int, thing: str) -> str:
    """A number of things in words: 1 file, 2 files, 2 boxes."""
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("x") else "s")


def spelled(name: str) -> str:
    """A file name as text that every file and terminal takes; bytes that are no UTF-8 are written \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def path_named(text: str) -> str:
    """The file name that a UTF-8 text means, whatever the encoding of file names is under the present locale.

    On systems that separate folders by a slash, a backslash is one too, as in tables that were made on Windows.
    """
    try:
        name = os.fsdecode(text.encode("utf-8"))
    except UnicodeEncodeError:  # a name that came from the file system already
        name = text
    return name.replace("\\", "/") if os.sep == "/" else name


def text_of(file: Path) -> str:
    """What a table or list says: UTF-8, or UTF-16 with a byte order mark (Excel's "Unicode text"); no mark in the text.

    Raises `VlmlabError` if it is neither, or cannot be read.
    """
    try:
        raw = file.read_bytes()
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise VlmlabError(f"{file} is not UTF-8 text; save it again in UTF-8") from error
    except OSError as error:
        raise VlmlabError(f"cannot read {file} ({error.strerror}); choose a file that you may read") from error


@dataclass(frozen=True)
class Table:
    """A table of labels as it was read.

    Attributes:
        columns: name in the header, in lower case -> its place.
        rows: (line, cells) of every row that says something.
    """

    path: Path
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]

    def value(self, cells: list[str], column: str) -> str:
        """A cell without white space around it; a row may end early."""
        place = self.columns[column]
        return cells[place].strip() if place < len(cells) else ""

    def file(self, cells: list[str]) -> Path:
        """The image that a row names: relative to the folder of the table, or an absolute path."""
        return self.path.parent / path_named(self.value(cells, "file"))


def header_of(path: Path) -> list[str]:
    """The columns of a CSV file in lower case, as far as they can be made out whatever its encoding."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(65536)
    except OSError as error:
        raise VlmlabError(f"cannot read {path} ({error.strerror}); choose a file that you may read") from error
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    first, second = [*raw.decode("utf-16" if wide else "utf-8-sig", "replace").splitlines()[:2], "", ""][:2]
    line = second if _says_separator(first) else first
    return [name.strip().strip('"').strip().lower() for name in line.split(_separator(line))]


def _says_separator(line: str) -> bool:
    return line.strip().lower().startswith("sep=")  # as spreadsheets write it


def _separator(header: str) -> str:
    return max(",;\t|", key=header.count)


def read_rows(path: Path) -> Table:
    """The rows of a CSV file with a header, separated by commas, semicolons, tabs or bars; fields may be quoted.

    Raises `VlmlabError` that names the line which is no CSV or has more cells than the header has columns, or a column
    that the header names twice.
    """
    text, skipped = text_of(path), 0
    if _says_separator(text.partition("\n")[0]):
        text, skipped = text.partition("\n")[2], 1
    # newline="": the csv module itself must see the line breaks, which may stand inside of quotes.
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=_separator(text.partition("\n")[0].partition("\r")[0]), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        rows = [(reader.line_num + skipped, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        line = reader.line_num + skipped
        raise VlmlabError(f"{path}, line {line}: {error}; close every quote and save it again") from error
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise VlmlabError(f"{path} has {names.count(twice)} columns called {twice}; keep one of them")
    long = next((line for line, cells in rows if any(cell.strip() for cell in cells[len(names) :])), None)
    if long:
        raise VlmlabError(
            f"{path}, line {long} has more cells than the header; put a label that holds the separator in quotes"
        )
    return Table(path, {name: place for place, name in enumerate(names) if name}, rows)


def tables_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """(tables with the columns file and label, other tables) that lie in a folder itself."""
    files = [f for f in listed(folder) if f.suffix.lower() in TABLES and os.path.isfile(f)]
    labels = [f for f in files if set(header_of(f)) >= COLUMNS]
    return labels, [f for f in files if f not in labels]
