"""Live panels for the book. Importing this package needs ipywidgets, and nothing else heavy before a panel is made."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlab.widgets.attention_viewer import AttentionViewer
    from vlmlab.widgets.bag_of_regions import BagOfRegions
    from vlmlab.widgets.cache_surface import CacheSurface
    from vlmlab.widgets.cache_votes import CacheVotes
    from vlmlab.widgets.cam_board import CamBoard
    from vlmlab.widgets.caption_diet import CaptionDiet
    from vlmlab.widgets.context_microscope import ContextMicroscope
    from vlmlab.widgets.descriptor_bars import DescriptorBars
    from vlmlab.widgets.detection_playground import DetectionPlayground
    from vlmlab.widgets.distillation_lens import DistillationLens
    from vlmlab.widgets.equation_lens import EquationLens
    from vlmlab.widgets.few_shot_board import FewShotBoard
    from vlmlab.widgets.figures_board import FiguresBoard
    from vlmlab.widgets.guess import Guess
    from vlmlab.widgets.hierarchy_tree import HierarchyTree
    from vlmlab.widgets.image_prompt import ImagePrompt
    from vlmlab.widgets.mask_queries import MaskQueries
    from vlmlab.widgets.masked_crop_lens import MaskedCropLens
    from vlmlab.widgets.method_lab import MethodLab
    from vlmlab.widgets.panel import Panel
    from vlmlab.widgets.phrasebook import Phrasebook
    from vlmlab.widgets.prompt_microscope import PromptMicroscope
    from vlmlab.widgets.prompt_samples import PromptSamples
    from vlmlab.widgets.proposal_board import ProposalBoard
    from vlmlab.widgets.protocol_box import ProtocolBox
    from vlmlab.widgets.pseudo_boxes import PseudoBoxInspector
    from vlmlab.widgets.pseudo_labels import PseudoLabels
    from vlmlab.widgets.scale_board import ScaleBoard
    from vlmlab.widgets.section_board import SectionBoard
    from vlmlab.widgets.segmentation_playground import SegmentationPlayground, tableau_pictures
    from vlmlab.widgets.stream import Stream
    from vlmlab.widgets.table_differ import TableDiffer
    from vlmlab.widgets.teachers import Teachers
    from vlmlab.widgets.transport_plan import TransportPlan
    from vlmlab.widgets.view_selection import ViewSelection
    from vlmlab.widgets.visual_prompt_board import VisualPromptBoard
    from vlmlab.widgets.wise_ft_frontier import WiseFTFrontier

_HOMES = {
    "AttentionViewer": "attention_viewer",
    "BagOfRegions": "bag_of_regions",
    "CacheSurface": "cache_surface",
    "CacheVotes": "cache_votes",
    "CamBoard": "cam_board",
    "CaptionDiet": "caption_diet",
    "ContextMicroscope": "context_microscope",
    "DescriptorBars": "descriptor_bars",
    "DetectionPlayground": "detection_playground",
    "DistillationLens": "distillation_lens",
    "EquationLens": "equation_lens",
    "FewShotBoard": "few_shot_board",
    "FiguresBoard": "figures_board",
    "Guess": "guess",
    "HierarchyTree": "hierarchy_tree",
    "ImagePrompt": "image_prompt",
    "MaskQueries": "mask_queries",
    "MaskedCropLens": "masked_crop_lens",
    "MethodLab": "method_lab",
    "Panel": "panel",
    "Phrasebook": "phrasebook",
    "PromptMicroscope": "prompt_microscope",
    "PromptSamples": "prompt_samples",
    "ProposalBoard": "proposal_board",
    "ProtocolBox": "protocol_box",
    "PseudoBoxInspector": "pseudo_boxes",
    "PseudoLabels": "pseudo_labels",
    "ScaleBoard": "scale_board",
    "SectionBoard": "section_board",
    "SegmentationPlayground": "segmentation_playground",
    "Stream": "stream",
    "TableDiffer": "table_differ",
    "Teachers": "teachers",
    "TransportPlan": "transport_plan",
    "ViewSelection": "view_selection",
    "VisualPromptBoard": "visual_prompt_board",
    "WiseFTFrontier": "wise_ft_frontier",
    "tableau_pictures": "segmentation_playground",
}

__all__ = [
    "AttentionViewer",
    "BagOfRegions",
    "CacheSurface",
    "CacheVotes",
    "CamBoard",
    "CaptionDiet",
    "ContextMicroscope",
    "DescriptorBars",
    "DetectionPlayground",
    "DistillationLens",
    "EquationLens",
    "FewShotBoard",
    "FiguresBoard",
    "Guess",
    "HierarchyTree",
    "ImagePrompt",
    "MaskQueries",
    "MaskedCropLens",
    "MethodLab",
    "Panel",
    "Phrasebook",
    "PromptMicroscope",
    "PromptSamples",
    "ProposalBoard",
    "ProtocolBox",
    "PseudoBoxInspector",
    "PseudoLabels",
    "ScaleBoard",
    "SectionBoard",
    "SegmentationPlayground",
    "Stream",
    "TableDiffer",
    "Teachers",
    "TransportPlan",
    "ViewSelection",
    "VisualPromptBoard",
    "WiseFTFrontier",
    "tableau_pictures",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
