"""Weight averaging: an exponential moving average of a stage's weights is the model it ends with (Polyak & Juditsky 1992)."""

import torch

from errors import UserError
from strategies import Strategy


class Ema(Strategy):
    """Averages floating-point parameters and buffers; the rest is taken as it is.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n steps, so that a short stage does not end in its start.

    Args:
        decay: Share of the average kept at each step.
    """

    def __init__(self, *, decay: float = 0.99):
        if not 0 <= decay < 1:
            raise UserError(f"strategies.ema.decay is {decay}, expected 0 <= decay < 1")
        self.decay = decay
        self.steps = 0
        self.average: dict[str, torch.Tensor] = {}

    def before_stage(self, run, stage):
        self.steps = 0
        self.average = {name: value.detach().clone() for name, value in run.model.state_dict().items()}

    @torch.no_grad()
    def after_step(self, run, step):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in run.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def end_training(self, run, stage):
        run.model.load_state_dict(self.average)

    def state_dict(self):
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state, run):
        self.steps = state["steps"]
        self.average = {name: value.to(run.device, copy=True) for name, value in state["average"].items()}
