"""A curtain before what the cells below show, until the reader has guessed."""

from __future__ import annotations

import anywidget
import traitlets

SCRIPT = """
function render({ model, el }) {
  const home = () => el.closest('.jp-Cell');
  let covered = [], asked = false;
  function draw() {
    asked = false;
    const wanted = [];
    if (!model.get("lifted")) {
      let cell = home()?.nextElementSibling, left = model.get('cells');
      for (; cell && left > 0; cell = cell.nextElementSibling) {
        if (!cell.classList.contains('jp-CodeCell')) continue;
        left -= 1;
        const output = cell.querySelector('.jp-Cell-outputWrapper');
        if (output) wanted.push(output);
      }
    }
    for (const output of covered) if (!wanted.includes(output)) output.classList.remove('vlmlab-covered');
    for (const output of wanted) output.classList.add('vlmlab-covered');
    covered = wanted;
  }
  const soon = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };
  const watcher = new MutationObserver(soon);
  const begin = () => {
    const notebook = el.closest('.jp-Notebook');
    if (notebook) watcher.observe(notebook, { childList: true, subtree: true });
    draw();
  };
  requestAnimationFrame(begin);
  model.on('change:lifted', draw);
  return () => { watcher.disconnect(); for (const output of covered) output.classList.remove('vlmlab-covered'); };
}
export default { render };
"""
STYLE = """
.vlmlab-covered { position: relative; height: 44px; min-height: 44px; overflow: hidden; }
.vlmlab-covered > * { visibility: hidden; }
.vlmlab-covered::after { content: 'hidden until you have guessed above'; position: absolute; left: 90px; top: 12px;
  color: var(--jp-ui-font-color2, #666); font-style: italic; }
"""


class Curtain(anywidget.AnyWidget):
    """Hides the outputs of the next `cells` code cells of the notebook until it is `lifted`."""

    _esm = SCRIPT
    _css = STYLE
    cells = traitlets.Int(0).tag(sync=True)
    lifted = traitlets.Bool(False).tag(sync=True)
