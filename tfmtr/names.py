"""Names that this package gives to inputs, outputs and towers, beside those of a schema's features and tasks.

They have their home here, without TensorFlow: the exported model is made of them, and `tfmtr prepare` refuses columns
and tasks that would meet them.
"""

import re

SCENARIO = "scenario"  # input of every model: the row's branch
REQUEST = ("request_territory", "seen", "k")  # inputs of `recommend` beside the user's features,
OPTIONS = ("allow", "where", "diversity")  # those that may be left out,
RANK_BY = "rank_by"  # and one more where the user is known
HISTORY = ("history", "history_ages")  # and two where lists are ordered by a user's past, too
COMBINE = "combine_tasks"  # and one more where a second stage ranks
FIRST_STAGE_WEIGHT = "first_stage_weight"  # another, of the first stage's score in the final one
EVIDENCE = "first_stage_"  # begins the names of features that are what a first stage knows of a title for a user
SEPARATOR = "\x1f"  # joins values of several columns
TITLES = "rank_titles"  # input of `rank`: the titles to rank
QUERY = "query"  # input of `recommend_by_vector` in place of the user's features
MODEL = "model"  # the same, and output of `user_embedding` beside the tasks
DERIVED = re.compile(r"(.+)_(calibration|calibrator|counterfactual|hazard_\d+|imputation|otherwise|teacher)")


def weight_name(task: str) -> str:
    """Input of `recommend` that weighs a task."""
    return f"weight_{task}"


def score_name(task: str) -> str:
    """Output of `recommend` and `rank`: what a ranking model says of a task."""
    return f"scores_{task}"


def derived_from(name: str) -> str | None:
    """The task, if there is one, of whose name a head would make this name for a tower or a loss.

    >>> derived_from("click_teacher"), derived_from("click")
    ('click', None)
    """
    match = DERIVED.fullmatch(name)
    return match[1] if match else None
