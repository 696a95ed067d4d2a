"""A chapter as it is committed: executed, small, and the same bytes for the same results.

GitHub shows stored outputs and runs nothing, so a chapter is committed with them. What a front end or a kernel leaves
behind besides (widget state, times, versions, temporary names) changes with every run and is taken off.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re

import numpy as np
from nbformat import NotebookNode, from_dict
from PIL import Image

from vlmlab.views.style import STATES

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("tags", "vlmlab", "jupyter")
"""Metadata of a cell that somebody wrote on purpose."""
WIDGET = "application/vnd.jupyter.widget-view+json"
SMALL_PNG = 30_000  # bytes up to which an image stays as it is
JPEG_QUALITY = 84
PALETTE = 256  # colours of a chart, antialiasing included
PALETTE_ERROR = 1.0  # grey levels, in the mean over the image, that they may be off


def normalise(notebook: NotebookNode) -> NotebookNode:
    """`notebook` in its committed form, in place; doing it twice changes nothing."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = from_dict(METADATA)
    names: set[str] = set()
    executed = 0
    for cell in notebook.cells:
        cell.id = _stable_id(cell, names)
        names.add(cell.id)
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT if key in cell.metadata})
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            executed += 1
            cell.execution_count = executed
        cell.outputs = [_tidy(output, cell.execution_count) for output in _joined(cell.outputs)]
    return notebook


def _stable_id(cell: NotebookNode, taken: set[str]) -> str:
    """The cell's own id if it is one of its kind, else one made from its text."""
    own = cell.get("id", "")
    if own not in taken and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", own):
        return own
    n = 0
    while (made := hashlib.sha256(f"{cell.source}\0{n}".encode()).hexdigest()[:8]) in taken:
        n += 1
    return made


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without views of widgets, and with the pieces of one stream put together."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.get("data", {}).pop(WIDGET, None) is not None and not set(output.data) - {"text/plain"}:
            continue
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _tidy(output: NotebookNode, count: int | None) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    data = output.get("data", {})
    if "text/plain" in data:
        # The address of an object is another in every run.
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    if "image/png" in data:
        kind, content = smaller(base64.b64decode(data["image/png"]))
        if kind != "image/png":
            del data["image/png"]
            if "image/png" in output.metadata:
                output.metadata[kind] = output.metadata.pop("image/png")
        data[kind] = base64.b64encode(content).decode()
    if STATES in data:
        data[STATES]["states"] = [[label, _address(address), alt] for label, address, alt in data[STATES]["states"]]
    return output


def _address(image: str) -> str:
    """An image in an address ("data:image/png;base64,..."), smaller."""
    start, _, content = image.partition(",")
    if start != "data:image/png;base64":
        return image
    kind, made = smaller(base64.b64decode(content))
    return f"data:{kind};base64,{base64.b64encode(made).decode()}"


def smaller(png: bytes) -> tuple[str, bytes]:
    """(kind, bytes) of an image: itself if it is small, else with a palette, or as a JPEG if that is smaller still."""
    if len(png) <= SMALL_PNG:
        return "image/png", png
    picture: Image.Image = Image.open(io.BytesIO(png))
    if picture.mode == "P":  # was made smaller before
        return "image/png", png
    picture = picture.convert("RGB")
    # Maximum coverage keeps the colour of a few small marks, which a median cut would mix with others.
    few = picture.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    charted = _bytes(few, "PNG", optimize=True)
    jpeg = _bytes(picture, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    # A chart has few colours and keeps its edges with a palette; a photograph would show bands.
    off = np.abs(np.asarray(picture, np.int16) - np.asarray(few.convert("RGB"), np.int16)).mean()
    if off < PALETTE_ERROR and len(charted) < len(png):
        return "image/png", charted
    return ("image/jpeg", jpeg) if len(jpeg) < len(png) else ("image/png", png)


def _bytes(picture: Image.Image, kind: str, **how) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()
