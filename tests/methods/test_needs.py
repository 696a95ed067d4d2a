"""What a system needs of its backbone is declared, and one function refuses."""

import open_clip
import pytest

from tests.golden.tiny_clip import tiny_backbone
from vlmlab.backbones.backbone import Backbone
from vlmlab.errors import VlmlabError
from vlmlab.methods.needs import NEEDS, lacking
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system, registry
from vlmlab.testing import toys


def test_what_the_taxonomy_declares_is_known():
    assert {need for row in registry().values() for need in row.needs} <= set(NEEDS)


@pytest.mark.parametrize("key", [key for key, row in registry().items() if "image tokens" in row.needs])
def test_visual_prompts_are_refused_by_a_resnet_and_the_way_out_is_one(key):
    system, resnet = load_system(key), tiny_backbone("rn")
    with pytest.raises(VlmlabError, match=f"visual prompts of {system.info.name} need a ViT: use micro-vit") as error:
        system(resnet)
    way = str(error.value).partition("--set ")[2]
    if way:
        name, _, value = way.partition("=")
        assert not lacking(system.needs(system.configure(resnet, **{name: value})), resnet)


def test_a_text_tower_without_an_end_token_takes_no_prompts():
    with LocalRandom(0):
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            text_cfg={
                "context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "pool_type": "last"
            },
        )  # fmt: skip
    backbone = Backbone("last", model, open_clip.SimpleTokenizer(context_length=24), embedded=True)
    with pytest.raises(VlmlabError, match="the text tower of last takes no learned prompts, which CoOp needs"):
        load_system("coop")(backbone)
    assert not lacking(registry()["tip_adapter"].needs, backbone) and not lacking(NEEDS, toys.backbone())
