"""A panel that is looked at before its first answer has come says so, in a line."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from matplotlib.figure import Figure

import vlmlab.widgets as panels
from vlmlab.errors import VlmlabError
from vlmlab.widgets.panel import Panel

NOISE = [("noise", np.zeros((16, 16, 3), np.uint8))]
GIVEN = {"Guess": {"question": "How many?", "answer": 4.0}}
NAMES = [name for name in panels.__all__ if name not in ("Panel", "tableau_pictures")]


@pytest.mark.parametrize("name", NAMES)
def test_a_panel_without_an_answer_says_so(name, monkeypatch):
    monkeypatch.delenv("VLMLAB_STRICT", raising=False)
    monkeypatch.setattr(Panel, "ask", lambda self, work, show: None)
    kind = getattr(panels, name)
    takes = inspect.signature(kind).parameters
    panel = kind(**GIVEN.get(name, {}), **({"pictures": NOISE} if "pictures" in takes else {}))
    for look, wanted in ((panel.static, Figure), (panel.facts, dict)):
        try:
            assert isinstance(look(), wanted)
        except VlmlabError as error:
            assert "nothing to show yet" in str(error)
    panel.close()
