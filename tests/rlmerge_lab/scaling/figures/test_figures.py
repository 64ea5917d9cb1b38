"""Figures draw in every theme, carry their labels, and have words for those who cannot see them."""

import re

import pytest

from rlmerge_lab.scaling.figures.style import _PALETTE, Theme
from rlmerge_lab.scaling.registry import STUDIES
from rlmerge_lab.scaling.render.files import image

NAMES = {
    "sparsity": ["figure-1"],
    "law": ["law"],
    "merge": ["figure-2", "figure-3"],
    "anatomy": ["figure-4"],
    "agents": ["figure-5"],
    "memory": ["figure-6"],
}


@pytest.mark.parametrize("name", STUDIES)
def test_figures_and_their_alternatives(outcomes, name):
    figures = outcomes[name].figures
    assert [figure.name for figure in figures] == NAMES[name]
    for figure in figures:
        assert len(figure.alt) > 100 and re.search(r"\d", figure.alt)
        axes = figure.draw(Theme()).axes
        assert all(axis.has_data() for axis in axes)
        assert all(axis.get_xlabel() or axis.get_xticklabels() for axis in axes)


def test_panels_stack_when_narrow(outcomes):
    (figure,) = outcomes["sparsity"].figures
    wide, narrow = (figure.draw(Theme(narrow=narrow)).get_size_inches() for narrow in (False, True))
    assert wide[0] > wide[1] and narrow[0] < narrow[1]


def test_dark_figures_have_a_dark_ground(outcomes):
    (figure,) = outcomes["memory"].figures
    light, dark = (sum(figure.draw(Theme(dark=dark)).get_facecolor()[:3]) for dark in (False, True))
    assert light == 3 and dark < 0.5


def test_the_same_figure_is_the_same_bytes(outcomes):
    (figure,) = outcomes["memory"].figures
    assert image(figure, "svg") == image(figure, "svg")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_stands_out_from_its_ground(dark):
    theme = Theme(dark=dark)
    ground = luminance(theme.paper)
    for name in _PALETTE:
        high, low = sorted((luminance(theme.colour(name)), ground), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, 1.4.11: graphical objects
