"""What sections 3.4 and 3.6 of the M3oE paper say of its tables, held against them and against the study's cells."""

from typing import NamedTuple

from studies.cells import p_text, table, text
from studies.m3oe.published import M3OE, TABLE_2, TABLE_3
from tfmtr.evaluation import compare

LEVEL = 0.05


class Claim(NamedTuple):
    """A sentence of the paper as pairs of rows of its tables, of which the first is said to have the higher AUC."""

    section: str
    sentence: str
    pairs: tuple


def _over(better, worse):
    """All pairs of rows."""
    return tuple((one, other) for one in better for other in worse)


MTL = ("ShBot-MTL", "PLE-MTL", "MMoE-MTL", "AdaTT", "AdaTT-sp")
MDL = ("ShBot-MDL", "MMoE-MDL", "PLE-MDL", "STAR")
BOTH = ("ShBot", "PLE", "MMoE")
CLAIMS = (
    Claim("3.4 (1)", "multi-task methods generally outperform MLP", _over(MTL, ("MLP",))),
    Claim("3.4 (1)", "multi-domain methods generally outperform MLP", _over(MDL, ("MLP",))),
    Claim(
        "3.4 (2)",
        "multi-domain versions of ShBot, PLE and MMoE consistently outperform their single-domain counterparts",
        tuple((f"{name}-MDL", f"{name}-MTL") for name in BOTH),
    ),
    Claim("3.4 (3)", "STAR is superior to the other multi-domain methods", _over(("STAR",), MDL[:-1])),
    Claim(
        "3.4 (4)", "M2M falls short of ShBot, PLE and MMoE in MDMT", _over([f"{name}-MDMT" for name in BOTH], ("M2M",))
    ),
    Claim(
        "3.4 (5)",
        "M3oE surpasses all baselines",
        _over((M3OE,), tuple(row.name for row in TABLE_2 if row.name != M3OE)),
    ),
    Claim("3.6 (1)", "fusion weights optimised by AutoML improve performance", ((M3OE, "w/o AutoML"),)),
    Claim("3.6 (2)", "concatenating the modules is inferior to adding them", ((M3OE, "Concat modules"),)),
    Claim("3.6 (3)", "fusing by a unified gate is less effective", ((M3OE, "Fully gated modules"),)),
    Claim(
        "3.6 (4)",
        "removing domain or task modules hurts performance",
        _over((M3OE,), ("w/o domain module", "w/o task module", "w/o domain&task module")),
    ),
)


def published(dataset):
    """`{row: overall AUC}` as the tables have it, in percent."""
    overall = {row.name: getattr(row, dataset)[-2] for row in TABLE_2}
    return overall | {row.name: getattr(row, dataset) for row in TABLE_3}


def claims(dataset, overall):
    """The section of the page: each claim, whether the published table supports it, and whether the cells do.

    A pair of rows counts for the claim if its first row's mean is the higher one; p-values are Welch's over seeds, with
    Holm's correction over all pairs of all claims for which there are two seeds or more.

    Args:
        dataset: `"movielens"` or `"kuairand"`.
        overall: `{row: [overall AUC in percent of each seed]}` of the rows that there are.

    Returns:
        Markdown; empty if no pair of a claim is there.
    """
    theirs = published(dataset)
    pairs = [pair for claim in CLAIMS for pair in claim.pairs if set(pair) <= overall.keys()]
    if not pairs:
        return ""
    means = {row: compare.mean_and_deviation(values)[0] for row, values in overall.items()}
    gains = {pair: means[pair[0]] - means[pair[1]] for pair in pairs}
    p_values = {pair: compare.welch(*(overall[row] for row in pair)) for pair in pairs}
    tested = [pair for pair in p_values if p_values[pair] is not None]
    adjusted = dict(zip(tested, compare.holm([p_values[pair] for pair in tested]), strict=True)) if tested else {}
    columns = [
        "section",
        "claim",
        "published table",
        "here",
        "significant for",
        "significant against",
        "of them tested",
    ]
    rows = []
    for claim in CLAIMS:
        there = [pair for pair in claim.pairs if pair in gains]
        if not there:
            continue
        supported = sum(theirs[one] > theirs[other] for one, other in claim.pairs)
        significant = [gains[pair] for pair in there if adjusted.get(pair, 1) < LEVEL]
        rows.append(
            [
                *(claim.section, claim.sentence, f"{supported} of {len(claim.pairs)}"),
                f"{sum(gains[pair] > 0 for pair in there)} of {len(there)}",
                str(sum(gain > 0 for gain in significant)),
                str(sum(gain < 0 for gain in significant)),
                str(sum(pair in adjusted for pair in there)),
            ]
        )
    of_pairs = [
        [
            f"{one} over {other}",
            f"{theirs[one] - theirs[other]:+.2f}",
            text(gains[one, other], "+.2f"),
            p_text(p_values[one, other]),
            p_text(adjusted.get((one, other))),
            f"{len(overall[one])} and {len(overall[other])}",
        ]
        for one, other in gains
    ]
    pair_columns = ["pair", "published", "here", "p (Welch)", "p (Holm)", "seeds"]
    return f"{table(columns, rows)}\n\n{table(pair_columns, of_pairs)}"
