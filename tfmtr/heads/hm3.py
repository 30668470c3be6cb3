"""Purchases decomposed by micro and macro behaviours after the click."""

from collections.abc import Sequence

from tfmtr.heads._head import Head
from tfmtr.heads._post_click import post_click
from tfmtr.schema import Task


def hm3(tasks: Sequence[Task]) -> Head:
    """Learns a purchase through two levels of behaviour: on the title's page (micro), then with the title (macro).

    Micro behaviours are such as looking at the pictures or the reviews, macro ones such as cart or wish list. Either
    level is decisive (D) or other (O); each can be reached through or around the one before:

        q_micro = p(D-Mi | click)
        q_macro = q_micro p(D-Ma | D-Mi) + (1 - q_micro) p(D-Ma | O-Mi)
        pCVR    = q_macro p(buy | D-Ma) + (1 - q_macro) p(buy | O-Ma)
        L = CE(p(click)) + CE(p(click) q_micro) + CE(p(click) q_macro) + CE(p(click) pCVR)

    each over all impressions.

    Reference: Wen et al., Hierarchically Modeling Micro and Macro Behaviors via Multi-Task Learning for Conversion
    Rate Prediction, SIGIR 2021, https://arxiv.org/abs/2104.09713, section 2. Several decisive behaviours of a level
    are one label, which says whether any of them happened. The paper's share of embeddings is the sharing file's part.

    Args:
        tasks: The schema's tasks: a click, and after it the micro behaviour, the macro behaviour and the purchase, in
            this order and all `after` the click; others are trained as in `parallel`.

    Returns:
        A `Head` with outputs such as `click`, `view|click`, `view`, `cart|click`, `cart`, `purchase|click`, `purchase`.

    Raises:
        ValueError: If there are not three tasks after one and the same click.
    """
    return post_click(tasks, "hm3", num_levels=3)
