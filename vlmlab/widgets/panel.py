"""What all live panels share: work beside the kernel, answers that come too late dropped, errors in one line.

A widget's callback runs in the thread that also runs cells. If it computed, the page would freeze and every position of a
slider that the reader passes would queue up. So a callback here only asks: `ask(work, show)` hands `work` to the panel's one
worker thread and returns at once. A newer request cancels the older one (`cancelled()` turns true inside of it), and an
answer that arrives after a newer request is dropped. What `show` draws goes into widgets whose `value` changes; nothing is
cleared, so nothing flickers.

Work that takes longer than 300 ms says so: what is shown fades, and a line tells the step (what `vlmlab.watch` says) and the
seconds. *Stop* ends it at the next chunk of images or step of learning.

One panel has three lives: live widgets; `static()`, a matplotlib figure of the same state, which notebooks show
where no widget can be; `facts()`, rounded numbers that nbval compares. In strict mode (VLMLAB_STRICT=1, as in tests and reports)
the work runs in the calling thread and an error is raised; live, it becomes one line, and the last good image stays.
"""

from __future__ import annotations

import base64
import html
import io
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import ipywidgets as widgets
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vlmlab.datasets.image_set import read_picture
from vlmlab.errors import VlmlabError
from vlmlab.views.style import STATES, Still
from vlmlab.watch import Stopped, watching
from vlmlab.widgets.clickable import Clickable, Thumbnails
from vlmlab.widgets.look import LOOK

LABEL = {"description_width": "76px"}
WIDE = widgets.Layout(width="100%")
JPEG_QUALITY = 88
PATIENCE, TICK = 0.3, 0.5  # seconds until work says that it goes on, and between two words about it
TALLEST = 570  # pixels of a live figure
SMALLEST_DPI = 85
ROOM = 580  # pixels: the width that a figure is drawn for until the page has told its own


def strict() -> bool:
    """Whether errors are raised and work runs at once (the environment variable VLMLAB_STRICT)."""
    return os.environ.get("VLMLAB_STRICT", "") not in ("", "0")


def static_only() -> bool:
    """Whether panels show a still image instead of widgets (VLMLAB_STATIC): under papermill, nbval and on GitHub."""
    return os.environ.get("VLMLAB_STATIC", "") not in ("", "0")


def nothing_yet() -> VlmlabError:
    """The error for a panel whose first answer has not come."""
    return VlmlabError("the panel has nothing to show yet; wait() until its first answer has come")


class Waiting(dict):
    """The answer of a panel before the first one has come: empty, and whoever reads of it is told so."""

    def __missing__(self, key: str) -> Any:
        raise nothing_yet()


class Panel:
    """The base of every panel.

    A panel sets `self.controls` and `self.views` (lists of widgets) and calls `super().__init__()` last; it implements
    `static()` and `facts()`, which read what `ask` brought, usually a dictionary `self.answer` that begins as `Waiting()`.
    """

    title = ""
    controls: list[Any]
    views: list[Any]
    moved: ClassVar[tuple[str, tuple]] = ("", ())
    """The control that a still of this panel can be moved by, an attribute, and its values there: few, since each is an image."""

    def __init__(self) -> None:
        self._requests = 0  # the number of the latest request
        self._halted = 0  # the number of the request that the reader stopped
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._progress: tuple[str, int, int] | None = None  # what the work last said of itself
        self._painted: dict[Clickable, tuple[Callable[[], Figure], int, int]] = {}
        self.revision = 0
        self.error = ""
        self._line = widgets.HTML()
        self._mark = widgets.HTML()
        self._closed = False
        self.busy = widgets.HTML()
        self.busy.add_class("vlmlab-busy")
        head = [widgets.HTML(f"{LOOK}<b>{html.escape(self.title)}</b>"), self.busy]
        if not hasattr(self, "stop"):  # a panel may have one among its controls
            self.stop = widgets.Button(description="Stop", icon="stop", disabled=True)
            self.stop.add_class("vlmlab-stop")
            head.append(self.stop)
        side, self.shown_box = widgets.Box(self.controls), widgets.VBox(self.views)
        row = widgets.Box([side, self.shown_box])
        for box, name in ((row, "row"), (side, "controls"), (self.shown_box, "shown")):
            box.add_class(f"vlmlab-{name}")
        top = widgets.HBox(head)
        top.add_class("vlmlab-head")
        self.box = widgets.VBox([top, row, self._line, self._mark])
        self.box.add_class("vlmlab-panel")
        self.box.add_class(f"vlmlab-{type(self).__name__}")
        self.stop.on_click(self.guarded(lambda button: self.halt()))
        self._repaint_done()

    # --- what a panel says of itself ----------------------------------------------------------------------------------

    def static(self) -> Figure:
        """The present state as a still figure."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """The present state in a few rounded numbers."""
        raise NotImplementedError

    # --- work ---------------------------------------------------------------------------------------------------------

    def ask(self, work: Callable[[Callable[[], bool]], Any], show: Callable[[Any], None]) -> None:
        """Run `work(cancelled)` in the worker thread and `show` its answer, unless something newer was asked meanwhile."""
        with self._lock:
            self._requests += 1
            number = self._requests
        if strict():
            show(work(lambda: False))
            self._repaint_done()
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"vlmlab-{type(self).__name__}")
        self._worker.submit(self._run, number, work, show)

    def _run(self, number: int, work: Callable, show: Callable) -> None:
        if self._stale(number):
            return
        self._progress, over = None, threading.Event()
        clock = threading.Thread(target=self._tell_busy, args=(over,), name="vlmlab-clock", daemon=True)
        clock.start()
        try:
            with watching(lambda *far: self._heard(number, far)):
                answer = work(lambda: self._stale(number) or self._halted == number)
            if self._halted == number:
                raise Stopped
            if not self._stale(number):
                show(answer)
                self.say("")
        except Stopped:
            if not self._stale(number):
                self.say(
                    "Stopped; what is shown is from before." if self._shows() else "Stopped; nothing is shown yet."
                )
        except Exception as error:
            if not self._stale(number):
                self.say(one_line(error))
        finally:
            over.set()
            clock.join()
        if not self._stale(number):
            self._repaint_done()

    def _stale(self, number: int) -> bool:
        return self._closed or number != self._requests

    def _heard(self, number: int, far: tuple[str, int, int]) -> None:
        """Note how far the work is; end it if nobody wants its answer."""
        if self._stale(number) or self._halted == number:
            raise Stopped
        self._progress = far

    def _tell_busy(self, over: threading.Event) -> None:
        """After a moment say what goes on, and for how long, until it is over."""
        began = time.monotonic()
        if over.wait(PATIENCE):
            return
        self.stop.disabled = False
        self.shown_box.add_class("vlmlab-old")
        while not over.is_set():
            doing, done, total = self._progress or ("computing", 0, 0)
            step = f" {done} of {total}" if total else ""
            self.busy.value = f"<span role='status'>{doing}{step}, {time.monotonic() - began:.0f} s</span>"
            over.wait(TICK)
        self.busy.value = ""
        self.stop.disabled = True
        self.shown_box.remove_class("vlmlab-old")

    def _shows(self) -> bool:
        return any(isinstance(view, Clickable) and view.value for view in _all(self.shown_box))

    def cancel(self) -> None:
        """Give up what is being computed; the last good image stays."""
        with self._lock:
            self._requests += 1

    def halt(self) -> None:
        """What the Stop button does: end the work at its next step, and say so."""
        self._halted = self._requests

    def guarded(self, change: Callable[..., None]) -> Callable[..., None]:
        """A callback that shows an error in one line instead of losing it; in strict mode it is raised."""

        def callback(*args) -> None:
            try:
                change(*args)
            except Exception as error:
                if strict():
                    raise
                self.say(one_line(error))
                self._repaint_done()

        return callback

    def wait(self, seconds: float = 60) -> None:
        """Block until the worker is idle (for tests and scripts; a notebook never needs it).

        Raises `TimeoutError` if that takes longer.
        """
        end, asked = time.monotonic() + seconds, -1
        while self._worker is not None and asked != self._requests:  # an answer may ask for the next one
            asked = self._requests
            self._worker.submit(lambda: None).result(max(0.0, end - time.monotonic()))

    # --- talking ------------------------------------------------------------------------------------------------------

    def say(self, message: str) -> None:
        """Show one line below the panel; an empty one removes it."""
        self.error = message
        self._line.value = f"<span class='vlmlab-told' role='alert'>{html.escape(message)}</span>" if message else ""

    def paint(self, view: Clickable, make: Callable[[], Figure], tallest: int = TALLEST) -> None:
        """Show the figure that `make` returns, as wide as the page has room for it; a resized page has it drawn again."""
        if view not in self._painted:
            view.observe(self.guarded(lambda change: self._resized(view)), "room")
        self._painted[view] = (make, view.room, tallest)
        figure = make()
        view.value, view.alt = png(figure, view.room or ROOM, tallest), getattr(figure, "alt", "") or view.alt
        view.spots = [_spot(figure, *spot) for spot in getattr(figure, "spots", ())]

    def _resized(self, view: Clickable) -> None:
        make, room, tallest = self._painted[view]
        if view.value and abs((room or ROOM) - view.room) > ROOM // 12:
            self.paint(view, make, tallest)

    def _repaint_done(self) -> None:
        self.revision += 1
        # A browser test waits for this number instead of sleeping.
        self._mark.value = f"<span class='vlmlab-rev' data-rev='{self.revision}'></span>"

    def _ipython_display_(self) -> None:
        if static_only():
            self.wait()  # a still image is shown once, so it must be of the first answer
            if self.error:
                display(Markdown(f"*{self.error}*"))
            elif not self.moved[0]:
                display(self.static())
            else:
                data, about = self._movable()
                display(data, metadata=about, raw=True)
        else:
            display(self.box)

    def _movable(self) -> tuple[dict, dict]:
        """(data, metadata) of the present state as an image, and beside it those that the values of `moved` give."""
        name, values = self.moved
        control = getattr(self, name)
        data, about = _bundle(self.static())
        present, states = control.value, []
        values = tuple(value for value in values if value in getattr(control, "options", values))
        for value in dict.fromkeys([*(v for v in values if v < present), present, *(v for v in values if v > present)]):
            control.value = value
            self.wait()
            one, told = _bundle(self.static())
            address = f"data:image/png;base64,{base64.b64encode(one['image/png']).decode()}"
            states.append([f"{value:g}", address, told["image/png"]["alt"]])
        data["image/png"] = base64.b64encode(data["image/png"]).decode()
        control.value = present
        self.wait()
        at = [label for label, *_ in states].index(f"{present:g}")
        return data | {STATES: {"name": control.description, "at": at, "states": states}}, about

    def close(self) -> None:
        """Close every widget and the worker; closing twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self.cancel()
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
        for widget in _all(self.box):
            widget.close()


def _bundle(figure: Figure) -> tuple[dict, dict]:
    """(data, metadata) that a front end gets of a figure of `views`."""
    assert isinstance(figure, Still)
    return figure._repr_mimebundle_()


def _all(widget: widgets.Widget) -> list[widgets.Widget]:
    below = [w for child in getattr(widget, "children", ()) for w in _all(child)]
    return [*below, widget]


def one_line(error: BaseException) -> str:
    """What went wrong, in one line: our own messages as they are, others with the place where they arose."""
    if isinstance(error, VlmlabError):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


# --- images for widgets.Image -----------------------------------------------------------------------------------------


def jpeg(pixels: np.ndarray, side: int | None = None) -> bytes:
    """uint8 pixels [H, W, 3] as JPEG; `side`: enlarge in blocks (small images) or reduce, to this many pixels' height."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if side is not None and side != image.height:
        how = Image.Resampling.NEAREST if side > image.height else Image.Resampling.LANCZOS
        image = image.resize((round(image.width * side / image.height), side), how)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def png(figure: Figure, room: int | None = None, tallest: int = TALLEST) -> bytes:
    """A matplotlib figure as PNG; one that is wider than `room` pixels is drawn for this width.

    Its letters become smaller first, down to a size that one can read (10 pixels for 8.5 points), then the charts.
    """
    width, height = figure.get_size_inches()
    if room is not None and width * figure.dpi > room:
        room = max(room, 300)
        figure.dpi = max(SMALLEST_DPI, room / width)
        figure.set_size_inches(room / figure.dpi, min(height, tallest / figure.dpi))
    stream = io.BytesIO()
    # Packed quickly: a panel waits for every repaint, and nobody keeps the file.
    figure.savefig(stream, format="png", facecolor="white", pil_kwargs={"compress_level": 1})
    return stream.getvalue()


def _spot(figure: Figure, axes: Axes, x: float, y: float, text: str) -> dict[str, Any]:
    """A point of a drawn figure in shares of its width and height, from the top left."""
    across, up = axes.transData.transform((x, y))
    return {"x": float(across / figure.bbox.width), "y": float(1 - up / figure.bbox.height), "text": text}


def image_view(alt: str, rows: int = 1, columns: int = 1) -> Clickable:
    """An image, empty at first, with a text for readers who do not see it; with cells, it can be clicked."""
    return Clickable(alt=alt, rows=rows, columns=columns)


# --- choosing an image ------------------------------------------------------------------------------------------------

LARGEST_UPLOAD = 20 * 1024 * 1024  # bytes
LONGEST = 1024  # pixels of the longer side of an upload


def uploaded(content: bytes, name: str = "the file") -> np.ndarray:
    """Pixels [H, W, 3] of an image that the reader dropped in, at most 1024 pixels on its longer side.

    Raises `VlmlabError` if it is too large a file or no image.
    """
    if len(content) > LARGEST_UPLOAD:
        raise VlmlabError(f"{name} has {len(content) / 2**20:.0f} MB; choose an image of at most 20 MB")
    try:
        return read_picture(io.BytesIO(content), LONGEST)
    except VlmlabError as error:
        reason = str(error).partition("(")[2].partition(");")[0]
        raise VlmlabError(f"{name} is no image that can be read ({reason}); choose a JPEG or PNG") from error


class PictureChooser:
    """Thumbnails of which one is chosen, its name, and a button for one's own file.

    `on_change()` is called when another one was chosen; `pixels` [H, W, 3] and `name` are the present one.
    """

    def __init__(
        self, pictures: list[tuple[str, np.ndarray]], on_change: Callable[[], None], guarded: Callable
    ) -> None:
        if not pictures:
            raise VlmlabError("there is no image to choose from; give at least one")
        self.pictures, self.on_change = list(pictures), on_change
        self.number = Thumbnails([pixels for _, pixels in self.pictures])
        self.number.add_class("vlmlab-picture")
        self.label = widgets.HTML()
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="your own image")
        self.upload.add_class("vlmlab-upload")
        self.number.observe(guarded(lambda change: self._chosen()), "value")
        self.upload.observe(guarded(self._take), "value")
        self.widgets = [self.number, self.label, self.upload]
        self._name()

    @property
    def name(self) -> str:
        return self.pictures[self.number.value][0]

    @property
    def pixels(self) -> np.ndarray:
        return self.pictures[self.number.value][1]

    def _chosen(self) -> None:
        self._name()
        self.on_change()

    def _name(self) -> None:
        self.label.value = (
            f"<span class='vlmlab-name'>image {self.number.value + 1} of {len(self.pictures)}: "
            f"<b>{html.escape(self.name)}</b></span>"
        )
        self.number.alt = f"images to choose from; chosen: {self.name}"

    def _take(self, change) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        self.add(file["name"], uploaded(bytes(file["content"]), file["name"]))

    def add(self, name: str, pixels: np.ndarray) -> None:
        """Append an image and choose it."""
        self.pictures.append((name, pixels))
        self.number.show([pixels for _, pixels in self.pictures])
        self.number.value = self.number.max


def sample_pictures(dataset: str = "tableau", count: int = 8) -> list[tuple[str, np.ndarray]]:
    """(what it shows, pixels) of the first test images, spread over the classes; "photographs" gives those."""
    from vlmlab.datasets import load_dataset

    if dataset == "photographs":
        from vlmlab.datasets.photographs import photographs

        return [(name, image.copy()) for name, image in photographs()[:count]]
    found = load_dataset(dataset)
    step = max(1, len(found.test) // count)
    chosen = list(range(0, len(found.test), step))[:count]
    return [(_shown(found, i), np.asarray(found.test.images(i)).copy()) for i in chosen]


def _shown(dataset, i: int) -> str:
    label = dataset.test.labels[i]
    if label.ndim:
        return ", ".join(dataset.classes[c] for c in label.nonzero().flatten().tolist())
    return dataset.classes[int(label)]
