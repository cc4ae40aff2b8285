"""Make Adam whose moments exist from the start."""

import torch
from torch import Tensor, nn


def adam(
    network: nn.Module, *, learning_rate: float | Tensor, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Return Adam for `network`, with moments laid out like the weights.

    Adam makes them on its first step otherwise, and restoring would have to guess their layout.
    """
    made = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas, fused=True)
    for parameter in network.parameters():
        made.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
    return made


def network_tensors(name: str, network: nn.Module) -> dict[str, Tensor]:
    """Return the live tensors of `network`, named `<name>.<tensor>`."""
    return {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}


def adam_tensors(name: str, network: nn.Module, made: torch.optim.Adam) -> dict[str, Tensor]:
    """Return the live moments of `made` for `network`, named `<name>.<parameter>.<moment>`."""
    return {
        f"{name}.{key}.{moment}": tensor
        for key, parameter in network.named_parameters()
        for moment, tensor in made.state[parameter].items()
    }
