"""MicroWorld: a small world that draws itself, with boxes, masks, relations and captions.

    rng = np.random.default_rng(0)
    scene = sample_scene(rng, count=2)        # the scene graph: categories, colours, textures, places, style
    image = render(scene, 64)               # pixels, instance mask, boxes; the same image at any size
    caption(scene, rng)                       # a sentence that is true of it

`objects` holds the categories, their hierarchy, and what pretraining is told of each; `domains` the specialised image
domains; `mixture` the images of pretraining.
"""

from __future__ import annotations

from vlmlab.world.captions import caption
from vlmlab.world.category import Category
from vlmlab.world.objects import BASE, HIERARCHY, NAMES, NOVEL, OBJECTS
from vlmlab.world.painter import Picture, render
from vlmlab.world.scene import Scene, SceneObject, sample_scene

__all__ = [
    "BASE", "HIERARCHY", "NAMES", "NOVEL", "OBJECTS", "Category", "Picture", "Scene", "SceneObject",
    "caption", "render", "sample_scene",
]  # fmt: skip
