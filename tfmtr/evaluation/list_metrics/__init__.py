"""Metrics of recommendation lists: a file has one function of its name.

    name(lists) -> array of shape (users,)

`lists` is a `tfmtr.evaluation.lists.Lists`: each user's titles, best first, and held-out positives. The values of users
without a positive mean nothing; those of all others must be finite, and 0 or more. Every file here is in every
evaluation, and so is what an installed package has in the entry points `tfmtr.evaluation.list_metrics`.
"""
