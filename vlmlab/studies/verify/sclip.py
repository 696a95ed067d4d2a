"""SCLIP: attention to what is alike leaves places their own names (arXiv 2312.01597)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import results

claim = "with attention to alike or near places in the last layer, places are named better than with CLIP's own"
cause = (
    "NACLIP leaves out the last block's residual sum and MLP, which the places of the embedded backbones were trained "
    "through; with the whole block (naclip_whole_block) its attention is above the plain one's"
)


def measure() -> Verdict:
    """Mean IoU on tableau, all names at once; nothing is random. Holds if SCLIP's and NACLIP's attention are both above the
    plain one's; MaskCLIP's value path stands beside them."""
    measured = {}
    for name, system, settings in (
        ("plain", "sclip", {"attention": "plain"}),
        ("sclip", "sclip", {}),
        ("naclip", "sclip", {"attention": "neighbours"}),
        ("naclip_whole_block", "sclip", {"attention": "neighbours", "reduced": False}),
        ("maskclip", "maskclip", {}),
    ):
        (row,) = results(system, "tableau", 0, seeds=(1,), **settings)
        measured[f"{name}_miou"] = round(row["metrics"]["miou"], 2)
    return Verdict(
        "sclip", claim, measured, min(measured["sclip_miou"], measured["naclip_miou"]) > measured["plain_miou"]
    )
