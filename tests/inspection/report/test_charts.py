from dataclasses import replace

import pytest

from rlmerge.inspection import TensorRow
from rlmerge.inspection.report import charts


def test_survival_shows_every_method_and_the_merge_itself_first(found):
    after = replace(found.forecasts[0], label="as stored")
    made = charts.survival(replace(found, after=after))
    assert made.index("as stored") < made.index("linear (average)")
    assert made.count("<svg") == 2


def test_magnitudes_are_powers_of_two(found):
    made = charts.magnitudes(found)
    assert "2⁻¹⁰" in made and charts.power(-12) == "2⁻¹²"


def test_depth_says_slope_and_interval(found):
    made = charts.depth(found)
    assert "rl-bf16-cnt -1.5 points [-2.51, -0.495]" in made
    assert charts.depth(replace(found, layers=())) == ""


def test_modules_and_sharing(found):
    assert charts.modules(found).count("MLP down") >= 4
    assert "changed by exactly 3 experts" in charts.sharing(found)


def test_spectrum_says_how_exact_it_is(found):
    assert "Complete decompositions" in charts.spectrum(found)
    bounded = tuple(replace(one, error=0.001) for one in found.spectra)
    assert "Relative error up to 1.0e-03" in charts.spectrum(replace(found, spectra=bounded))


@pytest.mark.parametrize(("layer", "shape", "shown"), [(3, (2, 5), 'data-value="10">2 × 5'), (None, (), '"1">scalar')])
def test_tensors_sort_by_value(found, layer, shape, shown):
    row = TensorRow("<w>", "norm", layer, shape, "float32", (0.5,) * 3, (float("nan"),) * 3, (0.0,) * 3, 0)
    made = charts.tensors(replace(found, tensors=(row,)))
    assert "&lt;w&gt;" in made and shown in made
    assert 'data-value="0.5">50.0 %' in made and 'data-value="-1">–' in made
