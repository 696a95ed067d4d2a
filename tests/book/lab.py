"""JupyterLab over a throw-away copy of the book, and a headless Chromium in front of it: for the tests and for the shots."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from vlmlab.book.lab import OPTIONS
from vlmlab.book.normalise import METADATA

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TOKEN = "vlmlab"
SOON, LATER, LONG = 60_000, 180_000, 900_000  # milliseconds to wait at most; a busy machine is slow

# One cell per panel, small enough to be ready in seconds.
PANELS = [
    "from vlmlab.widgets import MethodLab, tableau_pictures\n"
    "lab = MethodLab('coop', 'digits', shots=16, systems=('coop', 'tip_adapter', 'maple', 'zero_shot'))\nlab",
    "from vlmlab.widgets import PromptMicroscope\nmicroscope = PromptMicroscope()\nmicroscope",
    "from vlmlab.widgets import AttentionViewer\nviewer = AttentionViewer()\nviewer",
    "from vlmlab.widgets import SegmentationPlayground\nplayground = SegmentationPlayground(**tableau_pictures(3))\nplayground",
    "from vlmlab.widgets import FewShotBoard\nboard = FewShotBoard(shots=1, offered=('zero_shot', 'tip_adapter'))\nboard",
    "from vlmlab.widgets import EquationLens\nlens = EquationLens('zero_shot')\nlens",
    "from vlmlab.widgets import ProtocolBox\nbox = ProtocolBox()\nbox",
    "from vlmlab.widgets import ContextMicroscope\nlearned = ContextMicroscope(shots=1)\nlearned",
    "from vlmlab.widgets import TransportPlan\nplan = TransportPlan(shots=1)\nplan",
    "from vlmlab.widgets import ViewSelection\nsure = ViewSelection()\nsure",
    "from vlmlab.widgets import PseudoLabels\npseudo = PseudoLabels()\npseudo",
    "from vlmlab.widgets import Guess\nguess = Guess('How many?', 7, low=0, high=10, unit='', hides=1)\nguess",
    "print('the answer: seven')",
    """
import time

from vlmlab.watch import told
from vlmlab.widgets.panel import Panel, image_view


class Endless(Panel):
    title = "Endless"

    def __init__(self):
        self.controls, self.views = [widgets.Button(description="begin")], [image_view("nothing")]
        super().__init__()
        self.controls[0].on_click(lambda button: self.ask(self.work, lambda answer: None))

    def work(self, cancelled):
        for n in range(600):
            told("encoding images", n, 600)
            time.sleep(0.1)


import ipywidgets as widgets

endless = Endless()
endless
""".strip(),
]

PROBE = """
import gc, json, threading, time, psutil
import ipywidgets as widgets
from matplotlib._pylab_helpers import Gcf

held = widgets.HTML()
probe = widgets.Button(description="probe")
probe.add_class("test-probe")
asked = []


def tell(button):
    began = time.process_time()
    gc.collect()
    asked.append(1)
    facts = {
        "asked": len(asked), "figures": len(Gcf.figs), "threads": threading.active_count(),
        "widgets": len(widgets.widget._instances), "mb": psutil.Process().memory_info().rss / 2**20,
        "cpu": [began, time.process_time()],
    }
    held.value = f"<pre class='test-held'>{json.dumps(facts)}</pre>"


probe.on_click(tell)
widgets.VBox([probe, held])
""".strip()
"""The last cell of every notebook: a button that tells what the kernel holds and has used."""

SHOWING = (
    "PromptMicroscope", "AttentionViewer", "SegmentationPlayground", "FewShotBoard", "EquationLens",
    "ContextMicroscope", "TransportPlan", "ViewSelection", "PseudoLabels",
)  # fmt: skip

# The panels of the chapters on section 6, small: name -> the cell that makes it.
SECTION_6 = {
    "CacheVotes": "CacheVotes(shots=1)",
    "CacheSurface": "CacheSurface(shots=1)",
    "VisualPromptBoard": "VisualPromptBoard(pattern='noise')",
    "DescriptorBars": "DescriptorBars()",
    "SectionBoard": "SectionBoard()",
    "HierarchyTree": "HierarchyTree(shots=1)",
    "PromptSamples": "PromptSamples(shots=1)",
    "WiseFTFrontier": "WiseFTFrontier(shots=1, pictures=54, config={'epochs': 1})",
}

# The panels of the chapters on section 7, small: name -> the cell that makes it. What has to be fitted is as learning begins.
SECTION_7 = {
    "DetectionPlayground": "DetectionPlayground(('book', 'mushroom', 'zebra'), train=16, count=3, who='teacher', "
    "settings={'vild': {'epochs': 1}})",
    "ProposalBoard": "ProposalBoard(test=12)",
    "DistillationLens": "DistillationLens(train=32, scenes=4, settings={'epochs': 8, 'lr': 0.003, 'negatives': 4})",
    "BagOfRegions": "BagOfRegions(count=3)",
    "PseudoBoxInspector": "PseudoBoxInspector(train=24)",
    "MaskQueries": "MaskQueries(('cat', 'dog', 'sky', 'grass'), **FEW, segmenters={'zsseg': begun('zsseg', n_ctx=0)})",
    "MaskedCropLens": "MaskedCropLens(**PICTURES)",
    "CamBoard": "CamBoard(**ASKED)",
    "ImagePrompt": "ImagePrompt(**ASKED, method=begun('clipseg'))",
}
SECTION_7_BEGINS = """
from vlmlab.registry import load_system
from vlmlab.studies.few_scenes import task_of
from vlmlab.widgets import tableau_pictures

PICTURES = tableau_pictures(3)
ASKED = {name: value for name, value in PICTURES.items() if name != "words"}
FEW = {"pictures": PICTURES["pictures"]}


def begun(system, **settings):
    task = task_of(train=20)
    kind = load_system(system)
    method = kind(task.backbone, kind.configure(task.backbone, **settings))
    method.prepare(task.seen_by(kind.info.setup))
    return method
""".strip()

# Those of the chapters on sections 8 and 9, small.
SECTIONS_8_9 = {
    "ScaleBoard": "ScaleBoard()",
    "FiguresBoard": "FiguresBoard(protocol='OV-COCO', split='novel', backbone='ResNet-50')",
    "TableDiffer": "TableDiffer()",
    "Stream": "Stream('textures', images=60, arrived=60)",
    "CaptionDiet": "CaptionDiet(steps=20, images=60)",
    "Phrasebook": "Phrasebook(50, steps=2)",
    "Teachers": "Teachers('textures', images=60)",
}


def chromium():
    """The path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("VLMLAB_CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


@contextlib.contextmanager
def serving(more=()):
    """The address of a JupyterLab that serves the chapters, panels.ipynb, section6.ipynb, section7.ipynb and section89.ipynb, and
    `more` notebooks, as (name, cells)."""
    with tempfile.TemporaryDirectory() as place:
        folder, own = Path(place, "book"), Path(place, "jupyter")
        folder.mkdir()
        for path in (ROOT / "notebooks").glob("*.ipynb"):
            shutil.copy(path, folder)
        cells = [new_code_cell(source) for source in (*PANELS, PROBE)]
        nbformat.write(new_notebook(cells=cells, metadata=METADATA), folder / "panels.ipynb")
        sections = (6, "", SECTION_6), (7, SECTION_7_BEGINS, SECTION_7), (89, "", SECTIONS_8_9)
        for section, begins, panels in sections:
            cells = [new_code_cell(f"from vlmlab.widgets import {name}\n{cell}") for name, cell in panels.items()]
            cells = [new_code_cell(begins), *cells, new_code_cell(PROBE)]
            nbformat.write(new_notebook(cells=cells, metadata=METADATA), folder / f"section{section}.ipynb")
        for name, cells in more:
            nbformat.write(new_notebook(cells=cells, metadata=METADATA), folder / name)
        # All cells in the page, also those out of sight.
        settings = own / "settings" / "@jupyterlab" / "notebook-extension"
        settings.mkdir(parents=True)
        (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
        news = own / "settings" / "@jupyterlab" / "apputils-extension"
        news.mkdir(parents=True)
        quiet = json.dumps({"fetchNews": "false", "checkForUpdates": False})
        (news / "notification.jupyterlab-settings").write_text(quiet)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if k not in ("VLMLAB_STATIC", "VLMLAB_STRICT")} | {
            "JUPYTER_CONFIG_DIR": str(own / "config"),
            "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        }
        command = [
            sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--LabApp.expose_app_in_browser=True", *OPTIONS,
        ]  # fmt: skip
        with open(own / "log", "w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        address = f"http://127.0.0.1:{port}"
        try:
            # Straight to this machine: urlopen would ask a proxy for 127.0.0.1, be it one that an earlier test had set.
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            until = time.monotonic() + 180  # a busy machine takes its time
            while True:
                try:
                    direct.open(f"{address}/api?token={TOKEN}", timeout=5).read()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None and time.monotonic() < until, (own / "log").read_text()
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(120)  # a busy machine is slow


def opened(browser, server, name):
    """A page of 1280 x 800 with a notebook and a kernel that is ready."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(SOON)
    # A workspace of its own: the default one would open what earlier tests had open.
    page.goto(f"{server}/lab/workspaces/{uuid.uuid4().hex}/tree/{name}?token={TOKEN}", timeout=LATER)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=LATER)
    kernel_ready(page)
    return page


def kernel_ready(page):
    """Wait for the session itself: the page shows "idle" also before there is a kernel."""
    page.wait_for_function(
        """() => { const context = window.jupyterapp.shell.currentWidget?.sessionContext;
                   return context?.isReady && context.kernelDisplayStatus === 'idle'; }""",
        timeout=LATER,
    )


def run_all(page):
    """Run every cell, and wait until the last one has answered; none may end in an error."""
    page.evaluate(
        "() => { window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.allRan = true; }); }"
    )
    page.wait_for_function("() => window.allRan", timeout=LONG)
    errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    assert errors.count() == 0, errors.first.inner_text()


def has_images(page, names):
    """Wait until every panel of these names shows an image."""
    for name in names:
        page.wait_for_function(
            "name => [...document.querySelectorAll(`.vlmlab-${name} .vlmlab-shown img, .vlmlab-${name} .vlmlab-bars`)]"
            ".some(image => image.naturalWidth > 1 || image.className === 'vlmlab-bars')",
            arg=name,
            timeout=LONG,
        )


# --- what a test asks of a page ---------------------------------------------------------------------------------------------


def shown(browser, server, notebook, names):
    """The page of a notebook that was run, once every panel of these names has an image.

    With VLMLAB_SHOTS=FOLDER in the environment the tests leave screenshots there, as `make shots` does.
    """
    page = opened(browser, server, notebook)
    run_all(page)
    has_images(page, names)
    if os.environ.get("VLMLAB_SHOTS"):
        from tests.book.shots import of_page

        folder = Path(os.environ["VLMLAB_SHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        of_page(page, folder)
    return page


def revision(page, panel):
    return int(page.locator(f".vlmlab-{panel} .vlmlab-rev").get_attribute("data-rev"))


def settled(page, panel, before, timeout=LATER):
    """Wait until the panel was repainted after the revision `before`."""
    page.wait_for_function(
        "([panel, before]) => Number(document.querySelector(`.vlmlab-${panel} .vlmlab-rev`).dataset.rev) > before",
        arg=[panel, before],
        timeout=timeout,
    )


def fitted(panels, system):
    """Seconds from the click to the end of a fit of `system` in the method lab."""
    lab = panels.locator(".vlmlab-MethodLab")
    lab.locator(".vlmlab-system select").select_option(label=system)
    before, began = revision(panels, "MethodLab"), time.perf_counter()
    lab.locator(".vlmlab-fit").click()
    settled(panels, "MethodLab", before, LONG)  # the curve has begun, or a fit too short for one has ended
    panels.wait_for_function("() => document.querySelector('.vlmlab-MethodLab .vlmlab-stop').disabled", timeout=LONG)
    return time.perf_counter() - began


def typed(page, selector, text):
    field = page.locator(selector).first
    field.fill(text)
    field.press("Tab")  # the value is taken when the field is left


def pixels(page, selector):
    """Mean colour of an image in the page, as three numbers."""
    return page.evaluate(
        """async selector => {
            const image = document.querySelector(selector); await image.decode();
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            const sums = [0, 0, 0];
            for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sums[c] += data[i + c];
            return sums.map(sum => sum / (data.length / 4));
        }""",
        selector,
    )


def held(page):
    """What the kernel holds, told by the probe."""
    asked = page.evaluate("() => JSON.parse(document.querySelector('.test-held')?.innerText ?? '{\"asked\": 0}').asked")
    page.locator(".test-probe").click()
    page.wait_for_function(
        "n => JSON.parse(document.querySelector('.test-held')?.innerText ?? '{\"asked\": 0}').asked > n", arg=asked
    )
    return json.loads(page.locator(".test-held").inner_text())


def parts(box):
    """Where a panel's controls and its answer are, looked up at once: what is above may still move both."""
    return box.evaluate(
        "panel => ['controls', 'shown'].map(part => panel.querySelector(`.vlmlab-${part}`).getBoundingClientRect().toJSON())"
    )


def fit_a_small_screen(page):
    """Controls of about 240 px beside the answer, on one screen, without scrollbars from a few pixels of margin."""
    for box in page.locator(".vlmlab-panel").all():
        name, edges = box.get_attribute("class"), box.bounding_box()
        assert edges["x"] >= 0 and edges["x"] + edges["width"] <= 1280 and edges["height"] <= 640, (name, edges)
        side, shown = parts(box)
        assert 220 <= side["width"] <= 260 and side["x"] + side["width"] <= shown["x"], name
        assert abs(side["y"] - shown["y"]) < 4 and shown["width"] > 400, name
        bars = box.evaluate(
            """panel => [...panel.querySelectorAll('*')].filter(part => part.tagName !== 'PRE'
                && ['auto', 'scroll'].includes(getComputedStyle(part).overflowX)
                && part.scrollWidth > part.clientWidth && part.clientWidth > 0).map(part => part.className)"""
        )
        assert bars == [], (name, bars)
        images = box.locator("img[src]").evaluate_all(
            "images => images.map(image => [image.alt, image.clientWidth / image.clientHeight, image.naturalWidth / image.naturalHeight])"
        )
        for alt, shape, natural in images:
            assert len(alt) > 5 and abs(shape / natural - 1) < 0.05, (name, alt)


def narrow(page, width, height):
    """Every panel stays in a page of this size, its controls beside or above the answer."""
    page.set_viewport_size({"width": width, "height": height})
    for box in page.locator(".vlmlab-panel").all():
        name, edges = box.get_attribute("class"), box.bounding_box()
        assert edges["x"] >= 0 and edges["x"] + edges["width"] <= width, (name, edges)
        side, answer = parts(box)
        apart = side["x"] + side["width"] <= answer["x"] or side["y"] + side["height"] <= answer["y"]
        assert apart and answer["x"] + answer["width"] <= width and answer["width"] > 300, (name, side, answer)


def no_error_of_ours(page):
    text = page.locator(".jp-Notebook").inner_text()
    assert "Traceback" not in text and "Error displaying widget" not in text


def used(page, act):
    """Processor seconds of the kernel that `act()` costs, which is to wait for the repaint: other work on the machine does not
    count."""
    before = held(page)["cpu"][1]
    act()
    return held(page)["cpu"][0] - before
