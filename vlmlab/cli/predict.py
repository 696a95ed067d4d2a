"""The command that asks a system about your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmlab.cli.options import Device, Json, Root, Settings, check_setting_names, path_in
from vlmlab.cli.output import print_json, work
from vlmlab.errors import VlmlabError


def predict(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A key of vlmlab systems, such as vild.")],
    images: Annotated[list[Path], typer.Argument(parser=path_in, metavar="IMAGE", help="Image files.")],
    words: Annotated[str, typer.Option(metavar="LIST", help="What to look for, such as 'apple, tree'.")],
    dataset: Annotated[str, typer.Option(help="What the system learns from first.")] = "tableau",
    backbone: Annotated[str, typer.Option(help="A name of vlmlab backbones, ARCH/TAG or ARCH@FILE.")] = "micro-vit",
    seed: Annotated[int, typer.Option(help="Of training.")] = 0,
    threshold: Annotated[float, typer.Option(help="Least score of a box, 0 to 1.", min=0.0, max=1.0)] = 0.0,
    most: Annotated[int, typer.Option(help="Boxes of an image at most.", min=1)] = 20,
    out: Annotated[
        Path | None, typer.Option(parser=path_in, metavar="PATH", help="Folder for the images with boxes drawn in.")
    ] = None,
    settings: Settings = None,
    root: Root = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Look for words in your own images.

    The system learns from a dataset first. Scores of different systems mean different things, so there is no threshold
    unless you give one.
    """
    from vlmlab.backbones.catalog import check_backbone
    from vlmlab.datasets.catalog import check_dataset
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.experiment import Experiment, read_settings

    if system not in registry():
        raise unknown_system(system)
    if not {"detection", "segmentation"} & set(registry()[system].tasks):
        raise VlmlabError(f"{system} finds nothing in images; choose a system that detects or segments, such as vild")
    check_dataset(dataset)
    check_backbone(backbone)
    chosen = read_settings(settings or ())
    check_setting_names([system], chosen)
    experiment = Experiment(system, dataset, backbone, 0, seed, "all", chosen, root=root and str(root))
    with work():
        from vlmlab.files import must_be_writable
        from vlmlab.studies.predict import check_words, predict_images, read_images
        from vlmlab.studies.run import adapt

        asked = check_words(words.split(","))
        given = read_images(images)  # a mistake is told before anything is learned
        if out:
            must_be_writable(out)
        found = predict_images(adapt(experiment, device).method, given, asked, threshold, most)
    rows = []
    alike = len({path.stem for path in images}) < len(images)
    for number, (path, (facts, drawn)) in enumerate(zip(images, found, strict=True), 1):
        row = {"image": str(path), **facts}
        if out:
            row["drawn"] = str(out / (f"{number}-{path.stem}.png" if alike else f"{path.stem}.png"))
            drawn.save(row["drawn"])
        rows.append(row)
    if json_:
        return print_json(rows)
    for row in rows:
        print(row["image"])
        for one in row.get("detections", ()):
            print(f"  {one['score']:.3f}  {one['word']:<20}" + " ".join(f"{x:7.1f}" for x in one["box"]))
        for word, share in row.get("share", {}).items():
            print(f"  {share:6.2f} %  {word}")
