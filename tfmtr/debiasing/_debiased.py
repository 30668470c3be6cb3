"""A head with what is done about popularity bias."""

from collections.abc import Sequence
from typing import Any

from tfmtr import components
from tfmtr.heads._head import Head
from tfmtr.schema import Task


def debiased(head: Any, debias: Any, tasks: Sequence[Task]) -> Head:
    """The `Head` of a part, or one that is made, with the changes of a file of `tfmtr/debiasing/`; `None` for none.

    Raises:
        ValueError: If there is no such part, or it does not fit the tasks.
    """
    made = head if isinstance(head, Head) else components.find("heads", head)(tasks)
    return made if debias is None else components.find("debiasing", debias)(tasks, made)
