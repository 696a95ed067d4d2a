"""Controls that are turned hundreds of times, and fits that are stopped: memory, threads and figures do not grow."""

import gc
import random
import threading
import time

import ipywidgets as widgets
import matplotlib.pyplot as plt
import psutil
import pytest
from matplotlib.figure import Figure

from tests.torture import LONG
from tests.widgets.test_panels import QUICK
from tests.widgets.test_section_six import PANELS as SECTION_SIX
from vlmlab.widgets import MethodLab
from vlmlab.widgets.panel import Panel, _all

PANELS = QUICK | SECTION_SIX if LONG else {name: QUICK[name] for name in ("pseudo-labels", "prompt microscope")}
TOGGLES = 200 if LONG else 12
FITS = 50 if LONG else 4
GROWTH = 200  # MiB that a process may gain after the first round, by what it caches
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def live(monkeypatch):
    monkeypatch.delenv("VLMLAB_STRICT", raising=False)


def turn(panel: Panel, chance: random.Random) -> None:
    """Give one control of the panel another value that it may have."""
    control = chance.choice(controls(panel))
    if isinstance(control, widgets.Checkbox):
        control.value = not control.value
    elif isinstance(control, CHOICES):
        control.index = chance.randrange(len(control.options))
    elif isinstance(control, widgets.Text):
        control.value = f"a {chance.choice(WORDS)} {chance.choice(WORDS)}"
    else:
        steps = int((control.max - control.min) / control.step)
        control.value = control.min + chance.randint(0, steps) * control.step


CHOICES = widgets.Dropdown | widgets.ToggleButtons | widgets.SelectionSlider
KINDS = CHOICES | widgets.Checkbox | widgets.IntSlider | widgets.FloatSlider | widgets.Text
WORDS = ("red", "small", "car", "tree", "cat")


def controls(panel: Panel) -> list[widgets.Widget]:
    """What a reader may turn."""
    return [one for one in _all(panel.box) if isinstance(one, KINDS) and not one.disabled]


def workers() -> list[str]:
    """The threads that panels have started."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vlmlab-")]


def state() -> tuple[float, int, int, int]:
    """(MiB of this process, threads of panels, open figures, figures in memory)."""
    gc.collect()
    figures = sum(isinstance(one, Figure) for one in gc.get_objects())
    return psutil.Process().memory_info().rss / 2**20, len(workers()), len(plt.get_fignums()), figures


def held(name: str, before: tuple, after: tuple, panels: int) -> None:
    print(f"{name}: MiB, threads, open figures, figures {before} -> {after}")
    assert after[0] - before[0] < GROWTH
    assert after[1] <= panels and after[2] == 0, "one worker per panel, and no figure of pyplot's"
    assert after[3] <= before[3] + panels, "the present one of each may be drawn, or not yet"


def test_panels_that_are_toggled_do_not_grow():
    chance = random.Random(0)
    panels = {name: make() for name, make in PANELS.items()}
    for panel in panels.values():
        panel.wait(300)
    able = {name: panel for name, panel in panels.items() if controls(panel)}
    for panel in able.values():
        turn(panel, chance)  # its worker thread is there now
        panel.wait(300)
    before = state()
    for i in range(TOGGLES):
        panel = able[list(able)[i % len(able)]]
        turn(panel, chance)
        if i % 3 == 0:  # otherwise the next control is turned while this answer is computed
            panel.wait(300)
        assert "\n" not in panel.error
    for panel in able.values():
        panel.wait(300)
    after = state()
    for panel in panels.values():
        panel.close()
    held(f"{TOGGLES} toggles of {len(able)} panels", before, after, len(able))
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:
        time.sleep(0.05)
    assert workers() == [], "threads end with their panels"


def test_fits_that_are_stopped_leave_nothing():
    panel = MethodLab(system="coop", shots=1)
    for i in range(FITS + 2):
        if i == 2:
            before = state()
        panel.start()
        time.sleep(0.02 * (i % 10))
        panel.halt()
        panel.wait(300)
        assert "\n" not in panel.error
    after = state()
    panel.close()
    held(f"{FITS} stopped fits", before, after, 1)
