import pytest

from rlmerge.report import plots


@pytest.fixture
def names(result):
    return [expert["model"]["name"] for expert in result["experts"]]


def test_survival_shows_every_method_and_the_merge_itself_first(result, names):
    after = result["forecasts"][0] | {"label": "as stored"}
    found = plots.survival(result | {"after": after}, names)
    assert found.index("as stored") < found.index("linear (average)")
    assert found.count("<svg") == 2


def test_magnitudes_are_powers_of_two(result, names):
    found = plots.magnitudes(result, names)
    assert "2⁻¹⁰" in found and plots.power(-12) == "2⁻¹²"


def test_depth_says_slope_and_interval(result, names):
    found = plots.depth(result, names)
    assert "rl-bf16-cnt -1.5 points [-2.51, -0.495]" in found
    assert plots.depth(result | {"layers": []}, names) == ""


def test_modules_and_sharing(result, names):
    assert plots.modules(result, names).count("MLP down") >= 4
    assert "changed by exactly 3 experts" in plots.sharing(result, names)


def test_spectrum_says_how_exact_it_is(result, names):
    assert "Complete decompositions" in plots.spectrum(result, names)
    bounded = [s | {"error": 0.001} for s in result["spectra"]]
    assert "Relative error up to 1.0e-03" in plots.spectrum(result | {"spectra": bounded}, names)
