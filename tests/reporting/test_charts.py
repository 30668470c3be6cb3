import numpy as np
import pytest

from tfmtr.reporting import charts
from tfmtr.reporting.curves import Line
from tfmtr.reporting.gains import Comparison, Gain


def comparison(count):
    gains = [Gain(f"T{i}", i < 2, 9, 9, 0.2, 0.1, {}, 5.0 - i, 4.0 - i, 7.0 - i, None) for i in range(count)]
    missing = Gain("none", False, 1, 1, None, None, {}, None, None, None, None)
    return Comparison("baseline", [*gains, missing], missing, {}, {})


def drawn(monkeypatch, make):
    """The axes that a chart is made of."""
    seen = []
    monkeypatch.setattr(charts, "finish", lambda name, axis: seen.append(axis) or name)
    assert make() == "chart"
    return seen[0]


def test_gains_have_their_intervals_and_tell_major_and_minor_territories_apart(monkeypatch):
    axis = drawn(monkeypatch, lambda: charts.gains_chart("chart", comparison(4)))
    major, minor = axis.containers
    assert (major.get_label(), minor.get_label()) == ("major territory", "minor territory")
    assert major.lines[0].get_xydata().tolist() == [[5.0, 0.0], [4.0, 1.0]]
    assert minor.lines[0].get_markerfacecolor() == "none" != major.lines[0].get_markerfacecolor()
    assert major.lines[2][0].get_segments()[0].tolist() == [[4.0, 0.0], [7.0, 0.0]]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["T0", "T1", "T2", "T3"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the best is on top
    many = drawn(monkeypatch, lambda: charts.gains_chart("chart", comparison(60)))
    assert many.get_yticklabels() == []
    assert charts.gains_chart("chart", comparison(0)) is None


def test_lines_are_drawn_as_they_are(monkeypatch):
    lines = [Line("a", np.arange(3.0), np.array([1.0, np.nan, 2.0])), Line("b", np.arange(3.0), np.ones(3))]
    axis = drawn(monkeypatch, lambda: charts.lines_chart("chart", lines, x="x", y="y", diagonal=True, places=(0, 2)))
    assert [line.get_label() for line in axis.lines[:2]] == ["a", "b"]
    assert axis.lines[0].get_ydata()[2] == 2.0
    assert axis.lines[2].get_xydata().tolist() == [[0, 0], [2, 2]]
    assert axis.get_xlim() == (-0.5, 2.5)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "y")
    assert charts.lines_chart("chart", [], x="x", y="y") is None


def test_a_chart_is_the_same_every_time_and_its_names_are_its_own():
    line = Line("<b> $\\frac{1}$ &", np.arange(2.0), np.arange(2.0))
    first, second = (charts.lines_chart(name, [line, line], x="x", y="y") for name in ("one", "one"))
    assert first.body == second.body
    assert 'id="one-' in first.body
    assert "&lt;b&gt; $\\frac{1}$ &amp;" in first.body
    assert first.png.startswith(b"\x89PNG")
    assert "var(--ink)" in first.body
    assert "var(--series-1)" in first.body


def test_matplotlib_s_settings_stay_as_they_were():
    plt = pytest.importorskip("matplotlib.pyplot")
    before, figures = dict(plt.rcParams), plt.get_fignums()
    with charts.axes():
        assert plt.rcParams["font.size"] == charts.STYLE["font.size"]
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == figures
