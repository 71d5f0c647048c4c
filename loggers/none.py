"""--logger none: log.jsonl alone."""

from loggers import Logger


class NoLogger(Logger):
    """Tells nobody."""
