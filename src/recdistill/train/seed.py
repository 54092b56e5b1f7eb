"""One seed for every generator that training draws from."""

from __future__ import annotations

import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed torch on every device. Numpy generators are made from the seed where they are needed."""
    torch.manual_seed(seed)


def generator_states() -> dict[str, Tensor]:
    """Return the states of torch's generators as uint8 tensors, for a checkpoint."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{k}": state for k, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_generator_states(states: dict[str, Tensor]) -> None:
    """Put torch's generators back to the states of `generator_states`."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda:") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.split(":")[1]))
