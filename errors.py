"""Mistakes of the user, told apart from defects of the code."""

import difflib
import functools
import math
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input: says what was found, what was expected and what to do. Ends a command with exit code 2."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'? (allowed: …)` for a misspelt name, to be appended to an error message."""
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    return f"{guess} (allowed: {', '.join(names) or 'nothing'})"


def in_range(where: str, least: float, most: float = math.inf, /, **options: float) -> None:
    """UserError for the first of the options that is not a number within [least, most]; `where` ends with its dot."""
    for name, value in options.items():
        if not (math.isfinite(value) and least <= value <= most):
            expected = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
            raise UserError(f"{where}{name} is {value}, expected {expected}")


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's `main`: a UserError becomes one message on stderr and exit code 2, never a traceback."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return wrapped
