import inspect
import io
import json
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from tfmtr.datasets.funnel import FATES
from tfmtr.evaluation import tables
from tfmtr.evaluation.evaluation import Evaluation, print_tables
from tfmtr.evaluation.fitting_table import FittingTable
from tfmtr.evaluation.tables import pr_auc_table, statistics_table

TABLES = {name: table for name, table in vars(tables).items() if name.endswith("_table") and inspect.isfunction(table)}


def funnel_arguments():
    window = {"window": 0, "rows": 12_345, **dict.fromkeys(FATES, 0), "positives": 12_000, "unknown_title": 345}
    return [{"funnel": [window]}], ["rows of the log", "12,345", "positives", "titles table", "2.8%"]


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


# Words that must be on the screen as they are, in names of models, territories, groups, titles and users.
NAMES = (
    "United Arab Emirates", "Internationalisation", "Österreich", "日本の東京", "العربية", "[bold]Łódź[/]"
)  # fmt: skip
MODELS = ("baseline", "territory_branches_with_upsampling-seed-0", "multi-task model of 2024 [x]")


def pr_auc_arguments(names=NAMES, models=MODELS):
    windows = {1: {name: cell(0.25, 123_456_789) for name in names} | {"overall": cell(0.5, 99)}}
    return [dict.fromkeys(models, windows)], [*names, *models, "123,456,789", "prevalence", "gain over", "0.2500"]


def statistics_arguments():
    cells = {"group": "western-neighbours and others", "users": 10_000_000, "events": 2_000_000_000, "positives": 7}
    words = [*NAMES, "western-neighbours", "2,000,000,000", "positives", "share of", "overall", "100.0%"]
    return [{"statistics": {"territories": dict.fromkeys(NAMES, cells)}}], words


def lists_document(name="blend"):
    cell = {"ndcg": 0.35, "recall": 0.4, "capped_recall": 0.45, "hit_rate": 0.8, "lists": 4_938_268, "users": 1_234_567}
    means = {"model": cell, name: cell, "ease": {**cell, "ndcg": 0.1}}
    windows = {"1": {}, "2": {}}
    compared = {"ratio": 1.25, "low": 1.1, "high": 1.4, "detectable": 1.2}
    baselines = {
        "best": name,
        "validation": {"user_windows": 2_000},
        "ranking": {name: windows, "ease": windows},
        "compared": {name: compared, "ease": {**compared, "ratio": None, "low": None, "detectable": None}},
        "tuned": {name: {"reason": None}, "als": {"reason": "als needs pip install 'tfmtr[baselines]'"}},
    }
    kinds = {kind: {"ndcg": 0.25, "user_windows": 30} for kind in ("new users", "known users")}
    kinds |= {kind: {"recall": None, "positives": 0} for kind in ("new titles", "known titles")}
    again = {contender: {**of, "ndcg": of["ndcg"] + 0.05} for contender, of in means.items()}
    lists = {"k": 10, "lists": {"ranking": windows}, "means": {"new": means, "repeats": again}, "baselines": baselines}
    return {**lists, "left_out": {"1": {"users": 77}}, "segments": {"model": kinds, name: kinds}}


def lists_arguments():
    words = [*MODELS, "blend *", "ease", "1.250", "1.100-1.400", "0.4000", "0.4500", "0.8000", "NDCG", "hit rate"]
    words += [
        "4,938,268 lists of 1,234,567 users in 2 test windows.",
        "77 users had all",
        "2,000 lists of validation users.",
    ]
    return [dict.fromkeys(MODELS, lists_document())], [*words, "als needs pip install 'tfmtr[baselines]'."]


def segments_arguments():
    return [dict.fromkeys(MODELS, lists_document())], [*MODELS, "blend", "0.2500", "n/a", "30 new users", "titles"]


def test_the_lists_of_the_best_stand_first():
    lines, _ = render(tables.lists_table({"branches": lists_document()}, {}), 200)
    rows = [
        line.split()
        for line in lines
        if line.split()[:1] and line.split()[0] in ("branches", "blend", "ease") and "0." in line
    ]
    assert [row[0] for row in rows] == ["branches", "blend", "ease"]
    # The model's own row has no ratio; the last column is of lists that may repeat what users had.
    assert rows[0][1:] == ["0.3500", "0.4000", "0.4500", "0.8000", "0.4000"]
    assert rows[1][1:7] == ["*", "0.3500", "1.250", "1.100-1.400", "1.200", "0.4000"]
    assert rows[2][1:4] == ["0.1000", "n/a", "n/a"]


def calibration_arguments():
    cells = [{"rows": 1234567, "before": 0.133, "after": 0.133, "tried": 0.23, "map": "identity"}] * len(NAMES)
    why = "one half of the users has no positives and no negatives"
    error = {"": {"rows": 9, "before": 0.2, "after": 0.1, "map": None, "why": None}}
    error |= {name: {**cell, "why": why} for name, cell in zip(NAMES, cells, strict=True)}
    unknown = {"map": "of all", "why": None}
    document = {"by": "market_of_the_user", "method": "isotonic"}
    document |= {"maps": {"purchase": {}}, "unknown": {"purchase": unknown}}
    words = [*NAMES, *why.split(), "market_of_the_user", "purchase", "0.1330", "1,234,567", "none", "unknown ones"]
    return [{**document, "error": {"purchase": error}}], [*words, "of all"]


def recommendation_arguments():
    titles = [{"title": f"tt{i:08}", "name": f"The story of {name}", "score": 1.5} for i, name in enumerate(NAMES)]
    answer = {"territory": NAMES[0], "is_known": False, "fallback": ["cold_user"], "titles": titles}
    return ["user-0123456789-abcdefgh", answer], [*NAMES, "tt00000003", "Not in the users table.", "1.5000"]


def words_of(lines):
    """The words of a rendered table, and each column's words read downwards."""
    return " ".join(" ".join(lines).split())


def is_shown(words, lines):
    """Whether each word of a text is somewhere, whole."""
    found = set(words_of(lines).split())
    return all(word in found for word in words.split())


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_shows_whole_words_at_every_width(name, width):
    arguments, texts = globals()[name.replace("_table", "_arguments")]()
    lines, _ = render(TABLES[name](*arguments), width)
    assert max(map(cell_len, lines)) <= width
    assert not any("…" in line for line in lines)
    missing = [text for text in texts if not is_shown(text, lines)]
    assert not missing, "\n".join(lines)


@pytest.mark.parametrize("name", TABLES)
def test_a_file_gets_the_same_words_and_no_control_characters(name):
    arguments, texts = globals()[name.replace("_table", "_arguments")]()
    file = io.StringIO()
    Console(file=file).print(TABLES[name](*arguments))
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", file.getvalue())
    assert all(is_shown(text, file.getvalue().splitlines()) for text in texts)


def test_three_models_and_two_gains_are_one_table_of_80_columns():
    arguments, _ = pr_auc_arguments(["DE", "Deutschland"], ["none", "mmoe", "branches"])
    lines, _ = render(pr_auc_table(*arguments), 80)
    assert sum(line.startswith("territory") for line in lines) == 1
    wide, _ = render(pr_auc_table(*pr_auc_arguments()[0]), 60)
    assert sum(line.startswith("territory") for line in wide) > 1
    assert sum(line.startswith("Österreich") for line in wide) == sum(line.startswith("territory") for line in wide)


def test_only_a_word_wider_than_the_terminal_is_broken_and_nothing_of_it_is_lost():
    table = FittingTable()
    table.add("territory")
    table.add("positives", is_number=True)
    table.add_row("a" * 90, "1,000")
    lines, _ = render(table, 60)
    assert "".join(lines).count("a") == 90
    assert any(line.endswith("1,000") for line in lines)


def test_a_row_begins_on_one_line_and_a_heading_ends_on_one():
    table = FittingTable()
    table.add("territory")
    table.add("why there is none")
    table.add("rows", is_number=True)
    table.add_row("DE", "too few positives", "25")
    lines, _ = render(table, 28)
    assert [line.split() for line in lines if "─" not in line] == [
        ["why", "there"],
        ["territory", "is", "none", "rows"],
        ["DE", "too", "few", "25"],
        ["positives"],
    ]


def test_wide_letters_count_twice_and_a_long_heading_stands_above_its_table_once():
    table = FittingTable()
    table.add("territory")
    table.add("PR-AUC " + "x" * 50, is_number=True)
    table.add_row("東" * 12, "0.2500")
    lines, _ = render(table, 60)
    assert lines[0] == "PR-AUC " + "x" * 50
    assert "".join(lines).count("x") == 50
    assert lines[-1] == "東" * 12 + " 0.2500"


def test_names_cannot_command_the_terminal():
    results = {"a\x1b[2Jb\n": {1: {"DE\x07\x9b2J": cell(0.25, 10)}}}
    lines, styled = render(pr_auc_table(results))
    assert "a" in words_of(lines)
    assert not re.search(r"\x1b\[2J|\x07|\x9b", styled)


def test_results_are_printed_as_they_are_called(tmp_path):
    windows = {1: {"DE": cell(0.25, 10)}}
    name = "runs/" + "very-" * 20 + "long [bold]run[/]"
    document = {"tasks": {"click": {"territory": windows}}, **lists_document(), "warnings": ["below ease [x]"]}
    file = io.StringIO()
    print_tables({name: Evaluation(document, tmp_path)}, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert "click per territory" in lines
    assert lines[-1] == f"warning: {name}: below ease [x]"


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
