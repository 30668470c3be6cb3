"""The last step of `prepare`: schema.json and prepare.json."""

import dataclasses
import datetime
import json
from collections.abc import Sequence
from typing import Any

from tfmtr.datasets.dataset import IMPRESSIONS
from tfmtr.datasets.discovery import Window
from tfmtr.datasets.features import check_widths
from tfmtr.datasets.funnel import stages
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.counted_past import CountedPast
from tfmtr.datasets.preparing.placed_windows import PlacedWindows
from tfmtr.datasets.preparing.planned_features import FeaturePlan
from tfmtr.datasets.preparing.survey import Survey
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.preparing.written_examples import WrittenExamples
from tfmtr.datasets.preparing.written_titles import WrittenTitles
from tfmtr.datasets.report import build_report, check_negatives, count_examples, describe_tasks, fingerprint, shortfall
from tfmtr.schema import Feature, Scenario, Schema

MOST_SCENARIOS = 200


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What all steps found, for the report."""

    log: CheckedLog
    placed: PlacedWindows
    survey: Survey
    plan: FeaturePlan
    titles: WrittenTitles
    examples: WrittenExamples
    has_history: bool
    past: CountedPast | None = None

    @property
    def territories(self) -> dict[str, dict[str, Any]]:
        """The territories of the survey with their numbers of positives."""
        positives = self.examples.positives
        return {name: {**row, "positives": positives.get(name, 0)} for name, row in self.survey.territories.items()}


def write_report(work: Work, outcome: Outcome) -> None:
    """Writes schema.json and prepare.json."""
    counts, num_titles = outcome.examples.counts, len(outcome.titles.vectors)
    work.warn(work.funnel.total("unavailable"), "positives of titles that were not available were dropped")
    work.warnings.extend(shortfall(counts, work.options["negatives"]))
    without = sorted(name for name, row in outcome.territories.items() if not row["positives"])
    work.warn(len(without), f"territories have no positives: {without[:10]}")
    work.warn(num_titles == 1, "titles are all that there is: nothing can be ranked")
    newcomers = outcome.examples.newcomers
    if outcome.has_history and newcomers == work.funnel.total("positives"):
        work.warn(newcomers, "positives are all of users without a past: their user vectors are zero")
    if not any(row["split"] == "train" and row["window"] <= 0 for row in counts):
        raise ValueError(
            "`events` must give positives in the training windows: discoveries of available titles by training "
            "users; the warnings say what was dropped. Received: none"
        )
    check_negatives(counts, work.options["negatives"], num_titles)
    report = report_of(work, outcome)
    report["times"] = work.logs.has_times
    if work.is_drawn:  # windows are no spans of time
        report["windows"] = without_spans(outcome.placed.windows)
    report["funnel"], report["days"] = work.funnel.document(), outcome.placed.days
    report["stages"], report["splits"] = stages(report["funnel"]), work.funnel.by_split()
    finish(work, report)


def report_of(work: Work, outcome: Outcome) -> dict[str, Any]:
    """What the document `prepare.json` says of any data but what became of a log's rows; writes schema.json."""
    build_schema(work, outcome).save(work.out)
    counts, num_titles = outcome.examples.counts, len(outcome.titles.vectors)
    report = build_report(
        work.logs, work.options, outcome.placed.windows, counts, outcome.territories, num_titles, work.warnings
    )
    if outcome.examples.impressions:
        report[IMPRESSIONS] = count_examples(outcome.examples.impressions)
    if outcome.past is not None and outcome.log.counting.counters:
        report["counters"] = outcome.past.document()
    report["calendar"] = describe_calendar(outcome.placed)
    report["columns"], report["titles_without_text"] = outcome.log.columns, outcome.titles.without_text
    return report


def without_spans(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Windows that are no spans of time, as the document has them."""
    return [{"window": window.number, "start": None, "end": None} for window in windows]


def finish(work: Work, report: dict[str, Any]) -> None:
    """Writes `prepare.json`, after all other files, whose fingerprint it has."""
    report["fingerprint"] = fingerprint(work.out)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (work.out / "prepare.json").write_text(text, encoding="utf-8")


def build_schema(work: Work, outcome: Outcome) -> Schema:
    """The schema of the data, with the vectors of the stores.

    Raises:
        ValueError: If vectors are not as wide as in the data that these continue.
    """
    features = [*outcome.plan.all_features, *(outcome.past.features() if outcome.past else ())]
    if outcome.examples.user_width:
        features.append(Feature("user_vector", "user", "vector", width=outcome.examples.user_width))
    if outcome.titles.width:
        features.append(Feature("title_vector", "title", "vector", width=outcome.titles.width))
    if work.like is not None:
        check_widths(features, work.like.schema.features)
    columns = work.logs.scenario or ("territory",)
    groups = {(territory,): group for territory, group in outcome.survey.groups.items()}
    if work.logs.scenario:
        groups = {values: "/".join(values) for values in found_scenarios(work, columns)}
    places = ("territory",) if outcome.log.has_territories or not work.logs.scenario else ()
    slices = tuple(dict.fromkeys((*places, *columns)))
    tasks = describe_tasks(outcome.log.tasks, outcome.log.tables.after, outcome.examples.counts)
    return Schema(features=features, tasks=tasks, scenario=Scenario(columns, groups), slices=slices)


def found_scenarios(work: Work, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Combinations of the scenario's values that training rows have, sorted; one without a value is none.

    Raises:
        ValueError: If there are none, or too many for a branch each.
    """
    rows = work.engine.read_parquet(sorted(work.out.glob("*/split=train/**/*.parquet")))
    found = work.engine.rows(rows.select(*columns).distinct())
    found = sorted(tuple(row[name] for name in columns) for row in found if all(row[name] for name in columns))
    if not 0 < len(found) <= MOST_SCENARIOS:
        raise ValueError(
            f"`scenario` must have from 1 to {MOST_SCENARIOS} combinations of values in the training rows; take other "
            f"columns, or group their values in the log. Received: {len(found)} of {list(columns)}"
        )
    return found


def describe_calendar(placed: PlacedWindows) -> dict[str, str | float | int | None]:
    """The windows as the report says them."""
    tests = sum(window.number > 0 for window in placed.windows)
    return {
        "text": placed.text,
        "days": None if placed.calendar is None else placed.calendar.length / datetime.timedelta(days=1),
        "num_train": len(placed.windows) - tests,
        "num_test": tests,
    }
