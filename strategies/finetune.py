"""Plain fine-tuning: no protection at all, the lower bound. The same as a recipe without strategies, by name."""

from strategies import Strategy


class Finetune(Strategy):
    """Does nothing in any hook."""
