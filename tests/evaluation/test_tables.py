import io
import json
import re

import pytest
from rich.console import Console

from tfmtr.evaluation.tables import pr_auc_table, statistics_table


def render(table, width=100):
    """Lines of the table as plain text, and the text with its styles."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(table)
    return console.export_text(clear=False).splitlines(), console.export_text(styles=True)


def cell(pr_auc, positives, prevalence=0.1):
    return {"pr_auc": pr_auc, "prevalence": prevalence, "rows": 10 * positives, "positives": positives}


def results():
    def windows(factor):
        return {
            1: {"DE": cell(0.2 * factor, 100), "PL [x]": cell(0.4 * factor, 5000, 0.3), "RS": cell(None, 3, 0.01)},
            2: {"DE": cell(0.3, 60, 0.2), "PL [x]": cell(None, 20), "overall": cell(0.25, 2_000_000)},
        }

    return {"baseline": windows(1.0), "baseline with upsampling": windows(2.0), "multi-task": windows(1.5)}


def values(lines):
    """`{first word: the row's values}` of the rendered rows."""
    return {row[0]: row[1:] for row in (line.replace("PL [x]", "PL[x]").split() for line in lines) if row}


def test_pr_auc_table_shows_means_over_windows_sorted_by_positives():
    lines, _ = render(pr_auc_table(results()))
    rows = values(lines)
    # PR-AUC of DE: means of (0.2, 0.3), (0.4, 0.3), (0.3, 0.3); gains: means of (+50 %, 0 %) and (-25 %, 0 %).
    assert rows["DE"] == ["160", "15.0%", "0.2500", "0.3500", "0.3000", "+25.0%", "-12.5%"]
    assert rows["PL[x]"] == ["5,020", "20.0%", "0.4000", "0.8000", "0.6000", "+50.0%", "-25.0%"]
    assert rows["RS"] == ["3", "1.0%", *["n/a"] * 5]
    assert rows["overall"] == ["2,000,000", "10.0%", "0.2500", "0.2500", "0.2500", "+0.0%", "+0.0%"]
    order = [name for name in rows if name in ("DE", "PL[x]", "RS", "overall")]
    assert order == ["PL[x]", "DE", "RS", "overall"]
    assert lines[-1].strip() == "Means over the test windows 1, 2; positives are their sum."


def test_only_cells_that_are_not_available_are_dim():
    _, styled = render(pr_auc_table(results()))
    assert len(re.findall(r"\x1b\[2m *n/a *\x1b\[0m", styled)) == styled.count("n/a") == 5
    assert not re.search(r"\x1b\[2m *\+50.0%", styled)


def test_gains_are_those_over_the_named_baselines():
    (*header, _), rows = (render(pr_auc_table(results(), baseline="baseline with upsampling"))[0] for _ in range(2))
    assert " ".join(header).count("gain over") == 1
    assert values(rows)["DE"][-1] == "-12.5%"
    assert len(values(rows)["DE"]) == 6
    both = render(pr_auc_table(results(), baseline=["baseline with upsampling", "baseline"]))[0]
    assert values(both)["DE"][-2:] == ["-12.5%", "+25.0%"]


def test_results_from_json_give_the_same_table():
    assert render(pr_auc_table(json.loads(json.dumps(results())))) == render(pr_auc_table(results()))


def test_100_columns_hold_long_names_and_large_numbers_whole():
    long = {
        name: {1: {"United Arab Emirates": cell(0.25, 123_456_789), "Internationalisation": cell(0.5, 99)}}
        for name in results()
    }
    lines, _ = render(pr_auc_table(long))
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    text = " ".join(word for line in lines for word in line.split())
    for whole in ("123,456,789", "multi-task", "upsampling", "prevalence", "+0.0%", "Emirates"):
        assert whole in text
    narrow, _ = render(pr_auc_table(long), width=80)
    assert any(line.startswith("United Ar") for line in narrow)


def test_pr_auc_table_refuses_an_unknown_baseline_and_other_rows():
    with pytest.raises(ValueError, match=r"`baseline` must be one of .* Did you mean 'baseline'\?"):
        pr_auc_table(results(), baseline="basline")
    with pytest.raises(ValueError, match=r"`baseline` must be one of .*Received: baseline='multi-task'"):
        pr_auc_table(results(), baseline="multi-task")
    other = results()
    other["baseline"][1]["DE"] = cell(0.2, 101)
    with pytest.raises(ValueError, match="must be evaluated on the same rows"):
        pr_auc_table(other, baseline="baseline with upsampling")


def test_statistics_table_sorts_by_positives_and_ends_with_the_sum():
    territories = {
        "DE": {"group": "west", "users": 10, "events": 1000, "positives": 50},
        "PL [x]": {"group": "east [y]", "users": 5, "events": 1_000_000, "positives": 150},
        "RS": {"group": None, "users": 1, "events": 0, "positives": 0},
    }
    lines, _ = render(statistics_table({"statistics": {"territories": territories}}))
    rows = [line.split() for line in lines if line.strip()][-4:]
    assert rows == [
        ["PL", "[x]", "east", "[y]", "5", "1,000,000", "150", "75.0%"],
        ["DE", "west", "10", "1,000", "50", "25.0%"],
        ["RS", "1", "0", "0", "0.0%"],
        ["overall", "16", "1,001,000", "200", "100.0%"],
    ]


def test_statistics_table_without_positives_or_statistics():
    territories = {"DE": {"group": "west", "users": 10, "events": 1000, "positives": 0}}
    lines, _ = render(statistics_table({"statistics": {"territories": territories}}))
    assert lines[-1].split() == ["overall", "10", "1,000", "0", "n/a"]
    with pytest.raises(ValueError, match=r"as `tfmtr prepare` writes it.*Received: keys \['windows'\]"):
        statistics_table({"windows": []})
