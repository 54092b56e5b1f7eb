"""A running mean of the parameters over the steps, which is what is validated and kept.

    w_t = d_t w_{t-1} + (1 - d_t) θ_t,    d_t = min(d, (1 + t) / (10 + t))

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the growing d_t is TensorFlow's
``ExponentialMovingAverage``: the first steps, far from the end, are forgotten fast. Training itself goes on with θ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The mean of a module's parameters that take a gradient.

    Parameters
    ----------
    module
        Whose parameters.
    decay
        d, above 0 and below 1: about 1 / (1 - d) steps count.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step t = 0, 1, ... of the whole training."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._mean.values()), list(self._parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the mean in the place of the parameters, and them back at the end."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._mean[name] = self._mean[name], parameter.data

    def tensors(self) -> dict[str, Tensor]:
        """Return the mean, for a checkpoint."""
        return dict(self._mean)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for name, value in self._mean.items():
            value.copy_(tensors[name])
