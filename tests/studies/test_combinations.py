import importlib

import pytest

from tfmtr import components

PAIRS = [("parallel", "shared_bottom", "ranking"), ("in_batch_softmax", "shared_bottom", "two_tower")]


@pytest.fixture
def combinations():
    return importlib.import_module("studies.combinations.study")


def rows_of(page):
    """The cells of each row of the table, by head; the first is the header's."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)}


def test_the_page_says_what_works_what_does_not_and_what_is_refused(combinations, tmp_path, monkeypatch, capsys):
    def check(model, folder):
        raise ArithmeticError("click differs by 0.5 after reloading\nand more")

    assert combinations.attempt(*PAIRS[0]) == "yes"
    monkeypatch.setattr(combinations, "check_export", check)
    assert combinations.attempt(*PAIRS[0]) == "no: click differs by 0.5 after reloading"
    answers = dict(zip(PAIRS, ("no: why", "yes"), strict=True))
    monkeypatch.setattr(combinations, "attempt", lambda *combination: answers[combination])
    assert combinations.main(tmp_path / "a" / "page.md", PAIRS) == answers
    page = (tmp_path / "a" / "page.md").read_text(encoding="utf-8")
    expected = {"head": ["shared_bottom"], "parallel": ["/ no: why"], "in_batch_softmax": ["yes / refused"]}
    assert rows_of(page) == expected
    assert "1 of 2 combinations work" in page
    assert "* in_batch_softmax as ranking: a ranking model has no titles of other rows" in page
    assert "no: why" in capsys.readouterr().out


def test_the_checked_in_page_has_every_head_and_sharing_file_and_all_work(combinations):
    rows = rows_of(combinations.PAGE.read_text(encoding="utf-8"))
    shares = rows.pop("head")  # a file that somebody has just added is in no page yet
    assert set(shares) <= set(components.names("sharing"))
    assert set(rows) <= set(components.names("heads"))
    for head, answers in rows.items():
        of_forms = ("refused" if (head, form) in combinations.REFUSED else "yes" for form in combinations.FORMS)
        assert answers == [" / ".join(of_forms)] * len(shares)
