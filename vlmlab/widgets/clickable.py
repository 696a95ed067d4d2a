"""An image that is clicked itself: one of its cells, or a point with a name; arrow keys do the same, after one tab stop."""

from __future__ import annotations

import io
from collections.abc import Sequence

import anywidget
import numpy as np
import traitlets
from PIL import Image

MOST_COLUMNS, THUMBNAIL = 6, 40
"""Thumbnails in a row, and their side in pixels."""

SCRIPT = """
function render({ model, el }) {
  const box = document.createElement('div'), image = document.createElement('img');
  const mark = document.createElement('div'), tip = document.createElement('div');
  box.className = 'vlmlab-click'; mark.className = 'vlmlab-cell'; tip.className = 'vlmlab-tip';
  box.tabIndex = 0; tip.hidden = true;
  box.append(image, mark, tip); el.append(box);
  let address = null, hovered = -1;
  const spots = () => model.get('spots');
  const grid = () => [model.get('rows'), model.get('columns')];
  function paint() {
    const bytes = model.get('image');
    if (address) URL.revokeObjectURL(address);
    address = bytes && bytes.byteLength ? URL.createObjectURL(new Blob([bytes])) : null;
    if (address) image.src = address; else image.removeAttribute('src');
  }
  function describe() {
    const many = spots().length || grid()[0] * grid()[1] > 1;
    image.alt = model.get('alt');
    box.setAttribute('role', many ? 'application' : 'img');
    box.setAttribute('aria-label', model.get('alt') + (many ? '; arrow keys move the choice' : ''));
    box.tabIndex = many ? 0 : -1;
  }
  function show() {
    const [rows, columns] = grid(), [row, column] = model.get('place');
    mark.hidden = row < 0 || rows * columns < 2;
    mark.style.left = 100 * column / columns + '%'; mark.style.top = 100 * row / rows + '%';
    mark.style.width = 100 / columns + '%'; mark.style.height = 100 / rows + '%';
  }
  function choose(row, column) {
    const [rows, columns] = grid();
    row = Math.max(0, Math.min(rows - 1, row)); column = Math.max(0, Math.min(columns - 1, column));
    if (row * columns + column >= model.get('cells')) return;
    model.set('place', [row, column]); show(); model.save_changes();
  }
  function hover(number) {
    hovered = number;
    tip.hidden = number < 0;
    if (number < 0) return;
    const spot = spots()[number];
    tip.textContent = spot.text;
    tip.style.top = 'calc(' + 100 * spot.y + '% + 8px)';
    tip.style.left = spot.x < 0.6 ? 'calc(' + 100 * spot.x + '% + 8px)' : '';
    tip.style.right = spot.x < 0.6 ? '' : 'calc(' + 100 * (1 - spot.x) + '% + 8px)';
    box.setAttribute('aria-description', spot.text);
  }
  const share = event => {
    const edges = image.getBoundingClientRect();
    return [(event.clientX - edges.left) / edges.width, (event.clientY - edges.top) / edges.height, edges];
  };
  box.addEventListener('click', event => {
    box.focus({ preventScroll: true });
    if (spots().length) return;
    const [x, y] = share(event), [rows, columns] = grid();
    choose(Math.floor(y * rows), Math.floor(x * columns));
  });
  box.addEventListener('mousemove', event => {
    if (!spots().length) return;
    const [x, y, edges] = share(event);
    let best = -1, least = 14;
    spots().forEach((spot, n) => {
      const far = Math.hypot((spot.x - x) * edges.width, (spot.y - y) * edges.height);
      if (far < least) { least = far; best = n; }
    });
    hover(best);
  });
  box.addEventListener('mouseleave', () => hover(-1));
  box.addEventListener('blur', () => hover(-1));
  box.addEventListener('keydown', event => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault(); event.stopPropagation();
    if (spots().length) {
      const order = spots().map((_, n) => n).sort((a, b) => spots()[a].x - spots()[b].x);
      const at = order.indexOf(hovered) + step[0] + step[1];
      hover(order[(at + order.length) % order.length]);
    } else {
      const [row, column] = model.get('place');
      choose(Math.max(0, row) + step[0], Math.max(0, column) + step[1]);
    }
  });
  model.on('change:image', paint);
  model.on('change:alt', describe); model.on('change:rows', describe); model.on('change:columns', describe);
  model.on('change:spots', () => { hover(-1); describe(); });
  for (const name of ['place', 'rows', 'columns']) model.on('change:' + name, show);
  const measured = new ResizeObserver(() => {
    const column = el.closest('.vlmlab-shown');
    const room = column ? Math.floor(column.getBoundingClientRect().width) : 0;
    if (room > 50 && Math.abs(room - model.get('room')) > 8) { model.set('room', room); model.save_changes(); }
  });
  if (el.parentElement) measured.observe(el.parentElement); else measured.observe(el);
  paint(); describe(); show();
  return () => { measured.disconnect(); if (address) URL.revokeObjectURL(address); };
}
export default { render };
"""


class _Cells(anywidget.AnyWidget):
    """What both kinds of image share with the page; `cells` is how many of the rows x columns may be chosen."""

    _esm = SCRIPT
    image = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    rows = traitlets.Int(1).tag(sync=True)
    columns = traitlets.Int(1).tag(sync=True)
    cells = traitlets.Int(10**6).tag(sync=True)
    place = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(-1, -1)).tag(sync=True)
    spots = traitlets.List(traitlets.Dict()).tag(sync=True)
    room = traitlets.Int(0).tag(sync=True)


class Clickable(_Cells):
    """An image of `rows` x `columns` cells, or with named points; its `value` are the bytes of a JPEG or PNG.

    `place` is the cell that was clicked or reached with the arrow keys, (row, column) from the top left; it has a frame.
    (-1, -1) is none. With `spots`, [{"x", "y", "text"}] in shares of the image's width and height, hovering over a point (or
    the arrow keys) shows its text instead. `room` is the width in pixels that the page has for the image, once it is shown.
    """

    @property
    def value(self) -> bytes:
        return self.image

    @value.setter
    def value(self, content: bytes) -> None:
        self.image = content


class Thumbnails(_Cells):
    """Small images in rows, one of which is chosen: `value`, its number, at most `max`."""

    value = traitlets.Int(0)

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        """`pictures` are pixels [H, W, 3]."""
        super().__init__(place=(0, 0))
        self._tiles: list[Image.Image] = []
        self.observe(self._clicked, "place")
        self.observe(self._chosen, "value")
        self.show(pictures)

    @property
    def max(self) -> int:
        return self.cells - 1

    def show(self, pictures: Sequence[np.ndarray]) -> None:
        """Show these images; those before them in an earlier call are not made small again."""
        self._tiles += [_tile(pixels) for pixels in pictures[len(self._tiles) :]]
        self.columns = min(MOST_COLUMNS, len(self._tiles))
        self.rows, self.cells = -(-len(self._tiles) // self.columns), len(self._tiles)
        sheet = Image.new("RGBA", (self.columns * THUMBNAIL, self.rows * THUMBNAIL))
        for n, tile in enumerate(self._tiles):
            row, column = divmod(n, self.columns)
            sheet.paste(tile, (column * THUMBNAIL + 2, row * THUMBNAIL + 2))
        stream = io.BytesIO()
        sheet.save(stream, "PNG")
        self.image = stream.getvalue()

    @traitlets.validate("value")
    def _there(self, proposal) -> int:
        return min(max(0, proposal["value"]), self.max)

    def _clicked(self, change) -> None:
        self.value = change["new"][0] * self.columns + change["new"][1]

    def _chosen(self, change) -> None:
        self.place = divmod(change["new"], self.columns)


def _tile(pixels: np.ndarray) -> Image.Image:
    """The middle square of an image, small."""
    image, side = Image.fromarray(np.ascontiguousarray(pixels)), min(pixels.shape[:2])
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((THUMBNAIL - 4,) * 2, Image.Resampling.LANCZOS)
