"""A look at the installation: what is there, what is missing, what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from vlmlab import __version__
from vlmlab.backbones.catalog import manifest, photo_manifest
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, data_path, must_be_writable, sha256

HUB = "https://huggingface.co"


def examine(network: bool = False) -> dict[str, dict]:
    """{name: {"value", "ok", "note"}}; `note` says what to do if not `ok`. Only `network` leaves the machine."""
    findings = {
        "vlmlab": _finding(__version__),
        "python": _finding(f"{platform.python_version()} at {sys.executable}"),
        "platform": _finding(platform.platform()),
        "memory": _finding(f"{psutil.virtual_memory().total / 2**30:.1f} GiB"),
    }
    for package in _requirements():
        findings[package] = _package(package)
    if findings.get("torch", {"ok": False})["ok"]:
        findings |= _devices()
    findings |= _embedded_weights()
    findings["cache folder"] = _cache()
    findings["browser"] = _browser()
    if network:
        findings["model hub"] = _hub()
    return findings


def _finding(value: object, ok: bool = True, remedy: str = "", note: str = "") -> dict:
    return {"value": str(value), "ok": ok, "note": note if ok else remedy}


def _requirements() -> list[str]:
    """Names of the packages that vlmlab needs to run, from its own metadata."""
    try:
        lines = importlib.metadata.requires("vlmlab") or []
    except importlib.metadata.PackageNotFoundError:
        return ["torch", "open_clip_torch", "timm", "transformers", "distributed", "papermill"]
    return [re.match(r"[\w.-]+", line).group() for line in lines if "extra ==" not in line]


def _package(name: str) -> dict:
    try:
        return _finding(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return _finding("missing", False, f"pip install {name}")


def _devices() -> dict[str, dict]:
    import torch

    if torch.cuda.is_available():
        device = f"cuda: {torch.cuda.get_device_name()}"
    elif torch.backends.mps.is_available():
        device = "mps: Apple's GPU"
    else:
        device = "cpu"
    return {
        "device": _finding(device),
        "threads": _finding(f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
    }


def _embedded_weights() -> dict[str, dict]:
    """Every file that data/backbones/manifest.json and photo.json pin, by name."""
    remedy = "restore data/backbones from the repository, or make it again with vlmlab build"
    try:
        pinned = {file: digest for entry in manifest().values() for file, digest in entry["sha256"].items()}
        photo = photo_manifest()
    except VlmlabError as error:
        return {"embedded weights": _finding(error, False, remedy)}
    if not pinned:
        return {"embedded weights": _finding(f"none in {data_path('backbones')}", False, remedy)}
    pinned[photo["weights"]] = photo["sha256"]
    findings = {}
    for file, digest in pinned.items():
        path = data_path("backbones", file)
        found = sha256(path) if path.is_file() else None
        value = "missing" if found is None else f"SHA-256 {found[:12]}..."
        findings[file] = _finding(value, found == digest, f"expected {digest[:12]}...; {remedy}")
    return findings


def _cache() -> dict:
    folder = cache_path()
    try:
        must_be_writable(folder)
    except VlmlabError:
        return _finding(folder, False, "it cannot be written; name another one with VLMLAB_CACHE")
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _finding(folder, note=f"{used / 2**20:.0f} MiB used, {shutil.disk_usage(folder).free / 2**30:.1f} GiB free")


def _browser() -> dict:
    """A Chromium for the tests of the live panels; nothing else needs one."""
    named = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if named:
        return _finding(named)
    if importlib.util.find_spec("playwright"):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
        if Path(path).exists():
            return _finding(path)
    return _finding("none", note="only the tests of live panels need one: playwright install chromium")


def _hub() -> dict:
    request = urllib.request.Request(HUB, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return _finding(f"{HUB} answers ({answer.status})")
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        return _finding(f"{HUB} does not answer ({reason})", False, "the embedded backbones work without it")
