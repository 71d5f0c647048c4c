"""Mistakes of the user, told apart from defects of the code."""

import difflib
import functools
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
