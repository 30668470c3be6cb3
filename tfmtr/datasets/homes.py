"""Where users live, if only their events say it."""

# Ibis says less of its columns than they can do:
# pyright: reportOperatorIssue=false

import datetime

import ibis

EVERYWHERE = "all"  # the territory of all users where no table says any


def find_homes(events: ibis.Table, users: ibis.Table, until: datetime.datetime) -> ibis.Table:
    """Users with the territory that most of their rows before a time have; without such rows, that of the first row.

    Args:
        events: Table `user`, `title`, `time`, `territory`.
        users: Table `user` and more.
        until: Datetime, the start of the first test window: nothing may be known of it.

    Returns:
        `users` with `territory` (null for users whose rows have none) and `num_territories`.
    """
    rows = events.filter(events.user.notnull(), events.time.notnull(), events.territory.notnull())
    rows = rows.group_by("user", "territory").aggregate(
        before=(rows.time < until).sum(), late=(rows.time >= until).ifelse(rows.time, ibis.null(rows.time.type())).min()
    )
    is_known = rows.before > 0  # ties of those known before are not broken by time
    late = is_known.ifelse(ibis.null(rows.late.type()), rows.late)
    order = [rows.before.desc(), late.asc(nulls_first=True), rows.territory]
    rows = rows.mutate(
        rank=ibis.row_number().over(group_by="user", order_by=order),
        num_territories=rows.count().over(group_by="user"),
    )
    homes = rows.filter(rows.rank == 0).select("user", "territory", "num_territories")
    return users.left_join(homes, "user").drop("user_right")
