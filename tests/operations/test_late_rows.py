from tfmtr.operations.late_rows import account


def test_what_is_left_is_said_once():
    """Days 1 and 2 are the first data's; day 3 is run with one late day, then day 4, then day 5."""
    third = account({"1": 9, "2": 8, "3": 7}, ["2", "3"], accounted={"1": 9, "2": 6}, left={}, since="2")
    assert (third["left"], third["new"], third["lost"]) == ({}, {}, 0.0)  # the late rows of day 2 are trained on
    assert third["accounted"] == {"1": 9, "2": 8, "3": 7}
    rows = {"1": 9, "2": 10, "3": 7, "4": 6}
    fourth = account(rows, ["3", "4"], accounted=third["accounted"], left=third["left"], since="2")
    assert (fourth["left"], fourth["new"]) == ({"2": 2}, {"2": 2})
    rows = {"1": 9, "2": 13, "3": 8, "4": 6, "5": 5}
    fifth = account(rows, ["4", "5"], accounted=fourth["accounted"], left=fourth["left"], since="2")
    assert (fifth["left"], fifth["new"]) == ({"2": 5, "3": 1}, {"2": 3, "3": 1})


def test_a_day_that_was_never_run_is_left():
    found = account({"1": 9, "2": 8, "3": 7, "4": 6}, ["4"], accounted={"1": 9}, left={}, since="2")
    assert found["new"] == {"2": 8, "3": 7}


def test_rows_after_the_day_are_not_late():
    assert account({"1": 9, "2": 8, "3": 7}, ["2"], accounted={"1": 9}, left={}, since="2")["new"] == {}


def test_rows_that_are_gone_are_a_share_of_those_that_should_be_there():
    known = {"1": 10, "2": 10, "3": 20}
    found = account({"2": 10, "3": 14, "4": 5}, ["3", "4"], accounted=known, left={"2": 2}, since="2")
    assert found["lost"] == 8 / 32  # day 1 is before the log's first day: such logs keep some days only
    assert found["left"] == {}
