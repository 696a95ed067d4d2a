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
SOON, LATER, LONG = 20_000, 60_000, 300_000  # milliseconds to wait at most; a busy machine is slow

# One cell per panel, small enough to be ready in seconds, and a button that tells what the kernel holds.
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
    """
import gc, json, threading, psutil
import ipywidgets as widgets
from matplotlib._pylab_helpers import Gcf

held = widgets.HTML()
probe = widgets.Button(description="probe")
probe.add_class("test-probe")
asked = []


def tell(button):
    gc.collect()
    asked.append(1)
    facts = {
        "asked": len(asked), "figures": len(Gcf.figs), "threads": threading.active_count(),
        "widgets": len(widgets.widget._instances), "mb": psutil.Process().memory_info().rss / 2**20,
    }
    held.value = f"<pre class='test-held'>{json.dumps(facts)}</pre>"


probe.on_click(tell)
widgets.VBox([probe, held])
""".strip(),
]


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
def serving():
    """The address of a JupyterLab that serves the chapters, panels.ipynb, section6.ipynb, section7.ipynb and section89.ipynb."""
    with tempfile.TemporaryDirectory() as place:
        folder, own = Path(place, "book"), Path(place, "jupyter")
        folder.mkdir()
        for path in (ROOT / "notebooks").glob("*.ipynb"):
            shutil.copy(path, folder)
        cells = [new_code_cell(source) for source in PANELS]
        nbformat.write(new_notebook(cells=cells, metadata=METADATA), folder / "panels.ipynb")
        sections = (6, "", SECTION_6), (7, SECTION_7_BEGINS, SECTION_7), (89, "", SECTIONS_8_9)
        for section, begins, panels in sections:
            cells = [new_code_cell(f"from vlmlab.widgets import {name}\n{cell}") for name, cell in panels.items()]
            cells = [new_code_cell(begins), *cells]
            nbformat.write(new_notebook(cells=cells, metadata=METADATA), folder / f"section{section}.ipynb")
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
            process.wait(30)


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
