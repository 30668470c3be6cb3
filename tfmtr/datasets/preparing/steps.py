"""The steps of `prepare`, in order.

Read and check the tables; cut events and users into buckets by a hash of the user; survey what is known over
all buckets (first events, volumes, vocabularies, what is counted before each window); then make the examples and the
user vectors, pass after pass. A pass is as many buckets as the engine takes at once; the rows and their order depend on
the buckets alone, so they are the same for every engine. Memory does not grow with the number of users or events.
"""

from tfmtr.datasets.preparing.buckets import cut_buckets, plan_passes
from tfmtr.datasets.preparing.checked_log import check_log
from tfmtr.datasets.preparing.counted_past import count_past
from tfmtr.datasets.preparing.offered_titles import offer_titles
from tfmtr.datasets.preparing.placed_windows import place_windows, settle_users
from tfmtr.datasets.preparing.planned_features import plan_features
from tfmtr.datasets.preparing.survey import survey_buckets
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.preparing.written_examples import write_examples, write_sorted_tables
from tfmtr.datasets.preparing.written_report import Outcome, write_report
from tfmtr.datasets.preparing.written_titles import write_titles
from tfmtr.datasets.preparing.written_users import UserStore


def run_steps(work: Work) -> None:
    """All steps of one run of `prepare`, which write into `work.out`."""
    work.out.mkdir()
    log = check_log(work)
    placed = place_windows(work, log)
    log = settle_users(work, log, placed.windows)
    passes = plan_passes(work, log.num_events)
    work.advance("Cutting buckets", total=2 * len(passes) + 5)
    buckets = cut_buckets(work, log, placed.windows, passes)
    survey = survey_buckets(work, log, buckets)
    catalogue = offer_titles(work, log, placed.windows, survey)
    work.advance("Surveying features")
    plan = plan_features(work, log, buckets)
    past = count_past(work, log, buckets)
    work.advance("Writing titles")
    titles = write_titles(work, log, plan)
    work.advance("Making examples")
    user_store = UserStore(work, log, buckets, survey, plan=plan, title_vectors=titles.vectors)
    examples = write_examples(
        work, log, buckets, survey, catalogue=catalogue, plan=plan, past=past, user_store=user_store
    )
    write_sorted_tables(work)
    work.advance("Writing the report")
    write_report(work, Outcome(log, placed, survey, plan, titles, examples, buckets.has_history, past))
