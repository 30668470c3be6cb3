"""Impressions, clicks and what follows them, with the true probabilities of every impression.

Real logs say whether a click led to a purchase, never whether an impression that was not clicked would have. Here
a purchase is drawn for every impression as if it were clicked, and the log shows it where it was.
"""

from typing import NamedTuple, overload

import numpy as np

from tfmtr.schema import Feature, Scenario, Schema, Task

LATENT = 4
NUM_POSITIONS = 10
DAYS = 7.0  # after which no purchase is counted
TASKS = ("click", "view", "cart", "purchase")


class Impressions(NamedTuple):
    """Impressions and their truth; arrays have one value a row.

    Attributes:
        schema: The `Schema`: user and title ids, the number `intent`, the task click and the others after it.
        x: Model inputs by name.
        y: Labels by task, as a log has them: 0 without a click.
        probability: True `{"click": p, "purchase|click": p, "purchase": p}`; the second is that of a purchase if the
            impression were clicked. Of a click it is that in the middle of the page, where the position adds nothing.
        would_purchase: 1 where the impression would lead to a purchase if clicked, drawn once; the log shows it for
            the clicked ones only.
    """

    schema: Schema
    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]
    would_purchase: np.ndarray


def impressions(
    rows: int,
    *,
    num_users: int = 2_000,
    num_titles: int = 500,
    confounding: float = 1.0,
    hidden: float = 0.0,
    position: float = 0.0,
    delay: float = 0.0,
    world: int = 0,
    seed: int = 0,
) -> Impressions:
    """Draws impressions of random users and titles.

    What makes people click also makes them go on and buy: their affinity to the title, and an intent of the moment
    that enters every logit with the factor `confounding`. So clicked rows convert more often than the others would.
    After a click come a look at the page (view), then the cart, then the purchase, each likelier after the one before
    and possible without it:

        click    = sigmoid(-2.2 + 0.8 affinity + 0.6 appeal + c intent)
        view     = sigmoid(      0.8 affinity            + c intent)
        cart     = sigmoid(-1.0 + 0.6 value + 0.5 c intent) after a view, sigmoid(-3.5) else
        purchase = sigmoid( 0.0 + 0.6 value + 0.5 c intent) after the cart, sigmoid(-4.0 + 0.8 affinity) else

    Two things can be added that a log shows in training only. With `position` titles of high appeal were shown further
    up, which is clicked more: `click` gets the term `position (4.5 - place) / 4.5` for the places 0 to 9. With `delay`
    purchases come after the impression in an exponential time of that mean, cut at 7 days, and the log was read 0 to 7
    days after the impression: what came later is not in `y`.

    Args:
        rows: Number of impressions.
        num_users: Number of users.
        num_titles: Number of titles.
        confounding: The factor `c`; with 0 only the affinity confounds.
        hidden: Share in [0, 1] of the intent's variance that no feature shows. What is hidden cannot be corrected for
            by any head: the propensities cannot depend on it.
        position: Factor of the place on the page; 0 for no places.
        delay: Mean days from the impression to the purchase; 0 for purchases that are all seen.
        world: Seed of users and titles.
        seed: Seed of the impressions.

    Returns:
        `Impressions`.

    Raises:
        ValueError: If `hidden` is not in [0, 1], or `delay` is negative.

    Example:
    >>> data = impressions(1000, num_users=50, num_titles=20)
    >>> bool(data.y["purchase"].sum() < data.y["click"].sum() < 1000)
    True
    """
    if not 0.0 <= hidden <= 1.0:
        raise ValueError(f"`hidden` must be in [0, 1]. Received: hidden={hidden}")
    if delay < 0:
        raise ValueError(f"`delay` must not be negative. Received: delay={delay}")
    rng = np.random.default_rng([0, world])
    users, titles = rng.normal(size=(num_users, LATENT)), rng.normal(size=(num_titles, LATENT))
    appeal, value = rng.normal(size=(2, num_titles))

    rng = np.random.default_rng([1, world, seed])
    user, title = rng.integers(0, num_users, rows), rng.integers(0, num_titles, rows)
    seen, unseen = rng.normal(size=(2, rows))
    intent = confounding * (np.sqrt(1 - hidden) * seen + np.sqrt(hidden) * unseen)
    affinity = np.sum(users[user] * titles[title], axis=1) / np.sqrt(LATENT)

    click = -2.2 + 0.8 * affinity + 0.6 * appeal[title] + intent
    place, clicked_there = _places(appeal[title], click, position, np.random.default_rng([2, world, seed]))
    click = sigmoid(click)
    view = sigmoid(0.8 * affinity + intent)
    cart = np.stack([np.full(rows, sigmoid(-3.5)), sigmoid(-1.0 + 0.6 * value[title] + 0.5 * intent)])
    buy = np.stack([sigmoid(-4.0 + 0.8 * affinity), sigmoid(0.6 * value[title] + 0.5 * intent)])
    any_cart = view * cart[1] + (1 - view) * cart[0]
    conversion = any_cart * buy[1] + (1 - any_cart) * buy[0]

    def draw(p: np.ndarray | float) -> np.ndarray:
        return (rng.random(rows) < p).astype("float32")

    clicked = draw(clicked_there)
    viewed = draw(view)
    carted = draw(np.where(viewed == 1, cart[1], cart[0]))
    would_purchase = draw(np.where(carted == 1, buy[1], buy[0]))
    labels = (clicked, clicked * viewed, clicked * carted, clicked * would_purchase)
    y: dict[str, np.ndarray] = dict(zip(TASKS, labels, strict=True))
    x = {"user": 1 + user, "title": 1 + title, "intent": seen.astype("float32"), "scenario": np.ones(rows, "int32")}
    x |= {name: x[name].astype("int32") for name in ("user", "title")}
    training = []
    if position:
        training.append(Feature("position", "training", "id", tuple(map(str, range(NUM_POSITIONS)))))
        x["position"] = (1 + place).astype("int32")
    if delay:
        training.append(Feature("elapsed", "training", "number"))
        y["purchase"], x["elapsed"] = _seen(y["purchase"], delay, np.random.default_rng([3, world, seed]))
    schema = Schema(
        [
            Feature("user", "user", "id", tuple(map(str, range(num_users)))),
            Feature("title", "title", "id", tuple(map(str, range(num_titles)))),
            Feature("intent", "context", "number"),
            *training,
        ],
        [Task(name, mean=float(y[name].mean()), after=None if name == "click" else "click") for name in TASKS],
        Scenario(["market"], {("all",): "all"}),
    )
    probability = {"click": click, "purchase|click": conversion, "purchase": click * conversion}
    return Impressions(schema, x, y, probability, would_purchase)


def _places(
    appeal: np.ndarray, logit: np.ndarray, factor: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places on the page, the higher the appeal the nearer to 0, and the probability of a click there."""
    order = np.argsort(np.argsort(-appeal + rng.normal(size=len(appeal))))
    place = order * NUM_POSITIONS // len(appeal)
    return place, sigmoid(logit + factor * (4.5 - place) / 4.5)


def _seen(purchase: np.ndarray, delay: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Purchases that came before the log was read, and the days until then or until the purchase."""
    until_read = rng.uniform(0, DAYS, len(purchase))
    cut = 1 - np.exp(-DAYS / delay)
    until_purchase = -delay * np.log1p(-cut * rng.random(len(purchase)))  # exponential, given that it is below DAYS
    seen = (purchase == 1) & (until_purchase <= until_read)
    return seen.astype("float32"), np.where(seen, until_purchase, until_read).astype("float32")


@overload
def sigmoid(x: float) -> float: ...
@overload
def sigmoid(x: np.ndarray) -> np.ndarray: ...
def sigmoid(x: np.ndarray | float) -> np.ndarray | float:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))
