import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from vlmlab.views import boxes, charts, lessons, pictures
from vlmlab.views.style import SPLITS, SYSTEMS, system_style


def result(system, dataset, shots, seed, accuracy, zero_shot=30.0, **metrics):
    return {
        "system": system,
        "dataset": dataset,
        "shots": shots,
        "seed": seed,
        "metrics": {"accuracy": accuracy, **metrics},
        "zero_shot": {"accuracy": zero_shot, **{k: zero_shot for k in metrics}},
    }


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)


def test_no_figure_stays_open(image):
    charts.learning_curve([3.0, 2.0, 1.0])
    pictures.contact_sheet([image] * 3, ["a", "b", "c"], columns=2)
    assert plt.get_fignums() == []


def test_curve_shows_mean_and_spread_over_seeds():
    results = [result("coop", "digits", k, s, 40 + k + s) for k in (1, 4, 16) for s in (1, 3)]
    fig = charts.few_shot_curves(results)
    line = next(x for x in fig.axes[0].get_lines() if len(x.get_xdata()) == 3)
    assert list(line.get_xdata()) == [1, 4, 16]
    assert list(line.get_ydata()) == [43, 46, 58]
    band = fig.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(43 - 2**0.5) and band.max() == pytest.approx(58 + 2**0.5)


def test_base_new_bars_have_the_means():
    rows = [result("coop", "digits", 16, s, 0, base=60 + s, new=20, harmonic_mean=30) for s in (1, 3)]
    heights = [bar.get_height() for bar in charts.base_new_bars(rows).axes[0].patches]
    assert heights == [62, 20, 30]


def test_confusion_keeps_the_most_confused_classes():
    matrix = np.eye(30) * 10
    matrix[3, 7] = 40
    fig = charts.confusion(matrix, [f"class {i}" for i in range(30)], most=5)
    shown = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert len(shown) == 5 and {"class 3", "class 7"} <= set(shown)


def test_heat_is_brightest_where_the_map_is_highest(image):
    values = np.zeros((4, 4))
    values[3, 3] = 1
    shown = pictures.heat(np.zeros_like(image), values)
    assert shown.shape == image.shape and shown.dtype == np.uint8
    assert shown[-1, -1].sum() > shown[0, 0].sum() + 100


def test_unlabelled_pixels_keep_their_colour(image):
    labels = np.zeros(image.shape[:2], int)
    labels[:10] = -1
    shown = pictures.labelled(image, labels)
    assert (shown[:10] == image[:10]).all() and (shown[10:] != image[10:]).any()


def test_dense_maps_name_only_words_that_are_seen(image):
    scores = np.zeros((3, 64, 48))
    scores[1] = 1
    legend = pictures.dense_maps([image], ["picture"], [scores], ["sky", "tree", "cat"]).legends[0]
    assert [t.get_text() for t in legend.get_texts()] == ["tree"]


def test_bars_show_the_most_probable_words(image):
    fig = pictures.word_predictions([image], ["p"], np.array([[0.1, 0.7, 0.2]]), ["sky", "tree", "cat"], top=2)
    texts = [t.get_text() for axes in fig.axes for t in axes.texts]
    assert texts == ["cat  20 %", "tree  70 %"]


def test_a_system_keeps_its_style():
    assert system_style("coop") == system_style("coop")
    assert system_style("zero_shot")["linestyle"] == "--"


def test_a_figure_shows_itself_with_a_text_for_those_who_do_not_see_it():
    """Without pyplot nothing registers figures with IPython, which would print them as text."""
    data, metadata = charts.learning_curve([3.0, 2.0, 1.0]).described("the loss falls")._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == data["text/plain"] == "the loss falls"


def test_the_picture_of_the_readme_has_a_panel_for_everything(image):
    from vlmlab.views.overview import SUITE, suite

    seen = ("what it sees", [(image, "a"), (image, "b")], [("cat", "#0072B2")])
    fig = suite([image] * len(SUITE), list(SUITE), [seen, seen])
    shown = [axes.get_title() for axes in fig.axes if axes.get_images()]
    assert set(SUITE) <= set(shown) and shown.count("a") == 2


def test_names_of_points_do_not_cover_each_other():
    points = [("one", 0.1, 50.0), ("two", 0.11, 50.5), ("three", 0.1, 50.2), ("far", 0.9, 90.0)]
    fig = lessons.scatter({"left": points, "right": points}, "d")
    fig.draw_without_rendering()
    for axes in fig.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert sorted(text.get_text() for text in axes.texts) == ["far", "one", "three", "two"]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_room_shows_start_and_end():
    axes = lessons.room([("digits", 15.0, 80.0), ("objects", 97.0, 95.0)]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["+65", "-2"]
    assert sorted(bar.get_width() for bar in axes.patches) == [15.0, 80.0, 97.0, 97.0]


def test_a_matrix_leaves_empty_what_was_not_measured():
    axes = lessons.matrix(np.array([[1.0, np.nan], [-2.0, 30.0]]), ["a", "b"], ["x", "y"], "gain").axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["-2", "1", "30"]


def test_a_signed_matrix_is_white_at_zero_and_coloured_to_both_sides():
    def colours(signed):
        axes = lessons.matrix(np.array([[0.0, -3.0, 30.0]]), ["a"], ["x", "y", "z"], signed=signed).axes[0]
        image = axes.images[0]
        return image.cmap(image.norm(np.array([0.0, -3.0, 3.0])))[:, :3]

    zero, down, up = colours(signed=True)
    assert zero.min() > 0.95 and (down[0] > down[2]) != (up[0] > up[2])
    assert colours(signed=False)[0].min() < 0.5


def test_every_label_of_the_dots_has_its_mark_and_one_may_be_a_star():
    still = lessons.dots({"digits": {"one": 5.0, "own": 9.0}, "food": {"one": 50.0, "own": 60.0}}, star="own")
    marks = {line.get_label(): (line.get_marker(), list(line.get_xdata())) for line in still.axes[0].get_lines()[2:]}
    assert marks == {"one": ("o", [5.0, 50.0]), "own": ("*", [9.0, 60.0])}
    assert [text.get_text() for text in still.legends[0].get_texts()] == ["one", "own"]


def test_base_and_new_classes_have_their_colours_whatever_a_chapter_calls_them():
    plots = lessons.lines([0, 1], {"seen": [[1, 2]], "new classes": [[2, 1]], "another": [[0, 0]]}).axes[0].get_lines()
    assert [plot.get_color() for plot in plots] == [SPLITS["base"], SPLITS["new"], SYSTEMS[2]]
    marks = lessons.dots({"a system": {"novel": 1.0, "base": 2.0}}).axes[0].get_lines()[1:]
    assert [mark.get_color() for mark in marks] == [SPLITS["new"], SPLITS["base"]]


def test_twins_share_a_colour_and_differ_in_their_lines():
    curves = {name: [[1.0, 2.0]] for name in ("a", "a, mended", "b", "b, mended")}
    plots = lessons.lines([0, 1], curves, twins=2).axes[0].get_lines()
    colours, styles = [line.get_color() for line in plots], [line.get_linestyle() for line in plots]
    assert colours[0] == colours[1] != colours[2] == colours[3] and styles == ["-", "--"] * 2


@pytest.mark.parametrize("title", ["one line", "two\nlines", "a title\nof\nthree lines"])
@pytest.mark.parametrize("count", [4, 8])
def test_a_title_of_several_lines_is_whole(title, count):
    row = {"pixels": np.zeros((8, 8, 3), np.uint8), "title": title, "boxes": np.zeros((0, 4)), "colours": []}
    scenes = boxes.scenes_with_boxes([row] * count, legend={"base": SPLITS["base"]})
    scenes.savefig(drawn := io.BytesIO())
    ink = (np.asarray(Image.open(drawn).convert("L")) < 200).any(1)
    assert 2 <= ink.argmax() <= 14  # neither cut at the top nor far below it


def test_panels_have_no_colour_of_a_split_for_anything_else():
    """Bars of probabilities and the frame of a choice are neither blue (base classes) nor orange (new ones)."""
    from vlmlab.views.style import FAMILIES, INK, LOSS, MUTED, SPLITS, VALUE
    from vlmlab.widgets.look import LOOK

    taken = {*SPLITS.values(), *FAMILIES.values(), LOSS} - {INK, MUTED}
    assert VALUE in LOOK and [colour for colour in taken if colour.lower() in LOOK.lower()] == []
    assert len({*SPLITS.values(), *FAMILIES.values(), LOSS, VALUE}) == len(SPLITS) + len(FAMILIES) + 2
