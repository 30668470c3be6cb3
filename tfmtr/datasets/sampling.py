"""Sampling by hash: the same rows on every engine, in every order, on every machine.

A row is drawn because of what it is, never because of where it stands: the MD5 digest of the seed, a
purpose and the row's own key decides. Digests are compared as text, so DuckDB, Spark and any other
backend that Ibis compiles for agree row by row.
"""

# Ibis says less of its columns than they can do:
# pyright: reportAttributeAccessIssue=false

import functools

import ibis
import ibis.expr.types as ir

DIGITS = "0123456789abcdef"
DRAW_DIGITS = 7  # 16 ** 7 fits a 32-bit integer


def digest(seed: int, purpose: str, *keys: ir.Value) -> ir.StringValue:
    """Hex digest of a row's keys, different for every seed and purpose.

    Args:
        seed: Integer.
        purpose: Text that names what the digest decides, so that two decisions are independent.
        *keys: Ibis values, cast to text.

    Returns:
        Ibis text value of 32 lower-case hex digits.
    """
    parts = [ibis.literal(f"{seed}|{purpose}"), *(key.cast("string") for key in keys)]
    return functools.reduce(lambda left, right: left + "|" + right, parts).hexdigest("md5")


def is_below(value: ir.Value, fraction: float) -> ir.BooleanValue:
    """Whether a digest falls into the first `fraction` of all digests.

    Args:
        value: Digest, see `digest`.
        fraction: Float in [0, 1]; 0 keeps no row and 1 every row.

    Returns:
        Ibis boolean value.
    """
    bound = "g" if fraction >= 1 else f"{int(fraction * 16**8):08x}"  # "g" comes after every hex digit
    return value.left(8) < bound


def draw(value: ir.Value, count: int | ir.Value, *, skip: int = 0) -> ir.IntegerValue:
    """A number in `0 .. count - 1` from seven hex digits of a digest.

    Args:
        value: Digest, see `digest`.
        count: Positive integer or Ibis integer value, far below 16 ** 7.
        skip: Digits to leave out; draws from different digits are independent.

    Returns:
        Ibis integer value.

    Example:
    >>> import ibis
    >>> int(ibis.duckdb.connect().execute(draw(ibis.literal("00000ff00000000"), 100)))
    55
    """
    digits = [ibis.literal(DIGITS).find(value.substr(skip + place, 1)) for place in range(DRAW_DIGITS)]
    return functools.reduce(lambda high, low: high * 16 + low, (digit.cast("int64") for digit in digits)) % count
