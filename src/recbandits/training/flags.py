"""Command lines out of dataclasses: a flag for each field, with its type, default, limits and documentation."""

import argparse
import difflib
import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from types import GenericAlias
from typing import get_args

_WORDS = {"true": True, "false": False}


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses with one sentence and exit code 2."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        """Say what is wrong, without the usage, and leave."""
        self.exit(2, f"{self.prog}: {message}\n")

    def parse(self, arguments):
        """Parse a list of arguments; a flag that nobody knows is refused by name, with the nearest one that exists.

        Returns:
          dict from field or flag to value, only of what was given.
        """
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            self.error(f"unknown argument {unknown[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return vars(values)


def add_flags(parser, kind, title):
    """Add a flag `--<field>` for each field of a dataclass; a value may follow it or its equals sign.

    What is not given is left out of the result, so that the default is the dataclass's own. Fields that hold other
    dataclasses have no flag.

    Args:
      parser: `argparse.ArgumentParser`
      kind: dataclass whose fields are texts, numbers, truth values or tuples of numbers (`64,32` on the command line).
      title: of these flags in the help.
    """
    group, help_texts = parser.add_argument_group(title), _documentation(kind)
    for field in fields(kind):
        convert = _CONVERTERS.get(field.type) or _tuple_of(field.type)
        if convert is None:
            continue
        default = "" if field.default is MISSING else f" (default: {as_text(field.default)})"
        text = f"{help_texts.get(field.name, '')}{default}".replace("%", "%%")
        word = {"nargs": "?", "const": True} if field.type is bool else {}
        group.add_argument(
            f"--{field.name}", type=convert, default=argparse.SUPPRESS, metavar="VALUE", help=text, **word
        )


def as_text(value):
    """A value as the command line takes it: (64, 32) is "64,32", True is "true"."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _integer(text):
    """A whole number; tuning services write 64 as "64.0"."""
    number = _number(text)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(number)


def _number(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None


def _truth(text):
    if text.lower() not in _WORDS:
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return _WORDS[text.lower()]


_CONVERTERS = {int: _integer, float: _number, str: str, bool: _truth}


def _tuple_of(kind):
    """Converter for a tuple of numbers, or None where a field is something else."""
    item = get_args(kind)[0] if isinstance(kind, GenericAlias) else None
    if item not in (int, float):
        return None
    return lambda text: tuple(_CONVERTERS[item](part) for part in text.split(",") if part)


def _documentation(kind):
    """What docstrings of a dataclass and of those it inherits from say about each field, as a dict."""
    found = {}
    for ancestor in reversed(kind.__mro__[:-1]):
        text = inspect.cleandoc(ancestor.__doc__ or "")
        for name, words in re.findall(r"^  (\w+): (.+(?:\n    .+)*)", text, re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", words).rstrip(".")
    return found
