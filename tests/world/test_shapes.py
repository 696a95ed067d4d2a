import numpy as np
import pytest

from vlmlab.world.shapes import box, ellipse, join, polygon, rotate, star, stroke


def area(p):
    x, y = p.T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def test_areas_of_the_outlines():
    assert area(box(-0.5, -1, 0.5, 1)) == pytest.approx(2)
    assert area(polygon(0, 0, 1, 0, 0, 1)) == pytest.approx(0.5)
    assert area(ellipse(0.2, 0.1, 0.5, 0.3, points=400)) == pytest.approx(np.pi * 0.15, rel=1e-3)
    assert area(ellipse(0, 0, 1, start=180, end=360, points=400)) == pytest.approx(np.pi / 2, rel=1e-3)
    assert area(stroke(0, 0, 3, 4, 0.2)) == pytest.approx(1.0)


def test_a_stroke_without_length_is_finite():
    assert np.isfinite(stroke(0.1, 0.1, 0.1, 0.1)).all()


def test_star_has_its_first_tip_on_top():
    p = star(5, 1, 0.4)
    assert len(p) == 10
    assert np.allclose(p[0], (0, -1))
    assert np.allclose(np.hypot(*p.T)[1::2], 0.4)


def test_rotate_is_clockwise_on_the_screen_and_leaves_its_argument():
    p = polygon(1.0, 0.0)
    assert np.allclose(rotate(p, 90), (0, 1))
    assert np.allclose(rotate(p, 180, 0.5, 0), (0, 0))
    assert np.array_equal(p, [[1, 0]])


def test_arcs_are_not_shared_between_callers():
    first = ellipse(0, 0, 1)
    first += 5
    assert np.abs(ellipse(0, 0, 1)).max() <= 1


def test_join_keeps_the_order():
    assert np.array_equal(join(polygon(0, 0), polygon(1, 1, 2, 2)), [[0, 0], [1, 1], [2, 2]])
