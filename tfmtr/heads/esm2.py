"""Purchases decomposed by what people do after the click."""

from collections.abc import Sequence

from tfmtr.heads._head import Head
from tfmtr.heads._post_click import post_click
from tfmtr.schema import Task


def esm2(tasks: Sequence[Task]) -> Head:
    """Learns a purchase through the action that usually comes before it, such as putting the title in a cart.

    After a click a user either does the decisive action (DAction) or something else (OAction), and may buy after
    both. With `y1 = p(click)`, `y2 = p(action | click)`, `y3 = p(purchase | action)`, `y4 = p(purchase | other)`:

        pCTAVR = y1 y2,    pCVR = y2 y3 + (1 - y2) y4,    pCTCVR = y1 pCVR
        L = CE(y1, click) + CE(pCTAVR, action) + CE(pCTCVR, purchase)

    each over all impressions, so that the many actions teach what the few purchases cannot.

    Reference: Wen et al., Entire Space Multi-Task Modeling via Post-Click Behavior Decomposition for Conversion
    Rate Prediction, SIGIR 2020, https://arxiv.org/abs/1910.07099, section 3. Several decisive actions are one label,
    which says whether any of them happened, as there.

    Args:
        tasks: The schema's tasks: a click, the action after it and the purchase after it (both `after` the click;
            the action stands first), and any others, trained as in `parallel`.

    Returns:
        A `Head` with outputs such as `click`, `cart|click`, `cart`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If there are not two tasks after one and the same click.
    """
    return post_click(tasks, "esm2", num_levels=2)
