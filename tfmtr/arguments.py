"""What is typed after a command: values of options that are more than one word, and errors in the words of the command.

Example:
>>> pairs("map", ["user=uid", "title = asin"], keys=("user", "title"))
{'user': 'uid', 'title': 'asin'}
"""

import contextlib
import dataclasses
import datetime
import itertools
import json
import re
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from tfmtr.checks import check_choice

if TYPE_CHECKING:
    from typer._click.core import Command  # Typer's own copy of Click, to which it gives no public name

    from tfmtr.datasets.logs import Calendar

# Python's arguments that a command spells otherwise than by its option's own name.
ALIASES = {
    "sharing": ("share",),
    "heads": ("head",),
    "balancing": ("balance",),
    "debiasing": ("debias",),
    "user": ("user_id",),
    "index": ("kind",),
    "length": ("window_days",),
    "num_train": ("train_windows",),
    "num_test": ("test_windows",),
    "calendar": ("window_days", "train_windows", "test_windows", "end"),
    "has_times": ("no_times",),
}
# An argument in backticks, with or without a value, and what may stand in brackets after it: the option. An option of a
# part, "`units` of `share=ple`", is none of the command's.
ARGUMENT = re.compile(r"`([a-z_0-9]+)(\.[^`=]+)?(?:=([^`]*))?`(?! of `[a-z]+=)(?: \(`?(--[^)`]+)`?\))?")
# A path in backticks, which may be called like an option: `data` for example.
PATH = re.compile(r"`([^`]+)`(?= must be (?:a directory made by|a finished run|evaluated before))")
MOST_WINDOWS, MOST_DAYS = 100_000, 1_000_000


def pairs(
    option: str, texts: Sequence[str], keys: Collection[str] | None = None, what: str = "column"
) -> dict[str, str]:
    """`["a=b"]` as a dictionary.

    Args:
        option: Name of the option, without dashes.
        texts: What was typed. What follows the first `=` is the value, whatever it contains.
        keys: The names that there are, or `None` for any.
        what: What a value is, for the error.

    Raises:
        ValueError: If a text is no pair, or a name is none of `keys` or comes twice.
    """
    result = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            hint = ""
            if option == "map" and len(texts) > 1:
                hint = ". Pairs are separated by commas; a column that has a comma in its name must be renamed"
            raise ValueError(f"`--{option}` must be name={what} pairs{hint}. Received: {text!r}")
        if keys is not None:
            check_choice(f"--{option}", name, keys)
        if name in result:
            raise ValueError(
                f"`--{option}` must name each of them once. Received: {name!r} twice, as {result[name]!r} and {value!r}"
            )
        result[name] = value
    return result


def texts_of(option: str, path: Path | None, example: str) -> dict[str, str] | None:
    """The JSON object `{text: text}` of a file that an option names, or `None` where it was not given.

    Args:
        option: Name of the option, without dashes.
        path: The file.
        example: A value that it may have.

    Raises:
        ValueError: If the file is no such object, or a key comes twice; it names option, file and key.
    """

    def check(value: Any) -> str:
        return value.strip() if isinstance(value, str) else ""

    return _read_object(option, path, check, f'{{"territory": "{example}"}}, a text for each territory')


def places_of(option: str, path: Path | None) -> dict[str, tuple[float, float]] | None:
    """The JSON object `{text: (longitude, latitude)}` of a file that an option names, or `None`.

    Raises:
        ValueError: As for `texts_of`.
    """

    def check(value: Any) -> object:
        numbers = value if isinstance(value, list) and len(value) == 2 else ()
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            return None
        return numbers and -180 <= numbers[0] <= 180 and -90 <= numbers[1] <= 90

    what = '{"territory": [longitude, latitude]}, degrees in [-180, 180] and [-90, 90] for each territory'
    places = _read_object(option, path, check, what)
    return places and {name: tuple(place) for name, place in places.items()}


def _read_object(option: str, path: Path | None, check: Callable[[Any], object], what: str) -> dict[str, Any] | None:
    """A JSON object each of whose values fulfils `check`."""
    if path is None:
        return None

    def refuse(received: str) -> NoReturn:
        raise ValueError(f"`--{option}` must be a JSON file of {what}. Received: {path}, {received}") from None

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = {}
        for key, value in items:
            if key in found:
                refuse(f"which has {key!r} twice")
            found[key] = value
        return found

    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except OSError as error:
        refuse(f"which cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        refuse(f"which is no UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        refuse(f"which is no JSON at line {error.lineno}, column {error.colno}: {error.msg}")
    except RecursionError:
        refuse("which is nested too deeply")
    if not isinstance(document, dict):
        refuse(f"which is a {type(document).__name__}, no object")
    if not document:
        refuse("which is empty")
    for key, value in document.items():
        if not key or not check(value):
            refuse(f"where {key!r} is {json.dumps(value, ensure_ascii=False)[:80]}")
    return document


def calendar_of(
    calendar: "Calendar",
    *,
    window_days: float | None = None,
    train_windows: int | None = None,
    test_windows: int | None = None,
    end: datetime.datetime | None = None,
    warm_up: float | None = None,
) -> "Calendar":
    """A `Calendar` with what the options of the same names say, if they say anything.

    Raises:
        ValueError: If there is no such calendar.
    """
    if window_days is not None and not 1 / 86_400 <= window_days < MOST_DAYS:  # neither is true of a NaN
        raise ValueError(
            f"`--window-days` must be a number of days from a second to {MOST_DAYS:,} days. Received: {window_days}"
        )
    for option, number, least in (("--train-windows", train_windows, 1), ("--test-windows", test_windows, 0)):
        if number is not None and not least <= number <= MOST_WINDOWS:
            raise ValueError(f"`{option}` must be a number from {least} to {MOST_WINDOWS:,}. Received: {number}")
    if warm_up is not None and not 0 <= warm_up < 1:
        raise ValueError(f"`--warm-up` must be a share of the events, at least 0 and below 1. Received: {warm_up}")
    given = {"num_train": train_windows, "num_test": test_windows, "end": end, "warm_up": warm_up}
    given["length"] = None if window_days is None else datetime.timedelta(days=window_days)
    calendar = dataclasses.replace(calendar, **{name: value for name, value in given.items() if value is not None})
    length, num_train, num_test = calendar.length, calendar.num_train, calendar.num_test or 0
    if length is None or num_train is None:
        return calendar
    if warm_up is not None:
        raise ValueError(
            "`--warm-up` must be left out where `--window-days` and `--train-windows` say where windows begin. "
            f"Received: {warm_up}, {num_train} windows of {length / datetime.timedelta(days=1):g} days"
        )
    try:
        (calendar.end or datetime.datetime(2000, 1, 1)) - num_train * length  # pyright: ignore[reportUnusedExpression]
        (calendar.end or datetime.datetime(2000, 1, 1)) + (num_test + 1) * length  # pyright: ignore[reportUnusedExpression]
    except OverflowError:
        raise ValueError(
            f"`--end` and the windows must lie between the years 1 and 9999. Received: {num_train} and "
            f"{num_test} windows of {length / datetime.timedelta(days=1):g} days, and {calendar.end or 'no end'}"
        ) from None
    return calendar


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """`"512,256"` as `(512, 256)`.

    Raises:
        ValueError: If it is none.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"`--{option}` must be whole numbers with commas between them, such as 512,512. Received: {text!r}"
        ) from None


def in_words_of(command: "Command", message: str, typed: Sequence[str] = ()) -> str:
    """A message about Python's arguments, with the options of a command in their place.

    Args:
        command: A click command; arguments for which it has no option stay as they are.
        message: The message, with arguments in backticks: `batch_size`, or with a value, `missing_vectors="zero"`.
        typed: The words that were typed after the command: the option of a path that is among them is named.

    Returns:
        A text.
    """
    words = words_of(typed)
    changed = {text.partition("=")[0].strip() for word, text in itertools.pairwise(words) if word == "--set"}
    options = {}
    for parameter in command.params:
        names = sorted(parameter.opts, key=lambda name: not name.startswith("--"))
        if names and names[0].startswith("-"):
            options[parameter.name] = (names[0], *parameter.secondary_opts)

    def option(match: re.Match[str]) -> str:
        name, key, value, bracket = match.groups()
        if "changes" in options and changed & {name, f"{name}{key}"}:
            return f"`--set {match[0][1:]}"
        if key:  # of what an option says, such as a task's weight
            flag = options.get(name, ("",))[0]
            return f"`{flag} {key[1:]}`" if flag in words else match[0]
        option_name = next((n for n in (name, *ALIASES.get(name, ()), name.removesuffix("s")) if n in options), None)
        if option_name is None:
            return match[0]
        flags = [options[n][0] for n in (ALIASES[name] if name not in options and name in ALIASES else (option_name,))
                 if n in options]  # fmt: skip
        if value == "False" and len(options[option_name]) > 1:
            flags = [options[option_name][1]]
        elif value not in (None, "True", "False"):
            flags = [f"{flags[0]} {value.strip(chr(34) + chr(39))}"]
        if bracket and bracket.split()[0].split("=")[0] in options[option_name]:
            return f"`{bracket}`"
        rest = match[0].partition(" (")
        text = " and ".join(filter(None, [", ".join(f"`{one}`" for one in flags[:-1]), f"`{flags[-1]}`"]))
        return text + "".join(rest[1:])

    def place(match: re.Match[str]) -> str:
        path = match[1]
        return f"`{typed_path(path, words)}`" + ("" if Path(path).exists() else ", which does not exist,")

    # Names of arguments between the paths, so that no path is taken for one.
    pieces, end = [], 0
    for match in PATH.finditer(message):
        pieces += [ARGUMENT.sub(option, message[end : match.start()]), place(match)]
        end = match.end()
    return "".join([*pieces, ARGUMENT.sub(option, message[end:])])


def words_of(typed: Sequence[str]) -> list[str]:
    """What was typed, with options and their values apart.

    >>> words_of(["train", "--set=l2=1", "a=b"])
    ['train', '--set', 'l2=1', 'a=b']
    """
    return [part for word in typed for part in (word.split("=", 1) if word.startswith("--") else [word])]


def typed_path(path: str, words: Sequence[str]) -> str:
    """A path with the option that it was typed for, if it was.

    >>> typed_path("a/b", ["--data", "x", "--out", "./a/b"]), typed_path("c", ["--out", "d"])
    ('--out a/b', 'c')
    """
    name = next((name for name, word in itertools.pairwise(words) if str(Path(word)) == path), "")
    return f"{name} {path}" if name.startswith("-") else path


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the process as Ctrl-C does: `with` blocks clean up; the status is 128 + the signal.

    A signal that is ignored, as under `nohup`, stays so.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
