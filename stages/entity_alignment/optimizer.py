"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) by the function of torch that its class also calls.

The class itself imports torch's compiler when it is made, which takes 71 MiB and is not used here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS, EPSILON = (0.9, 0.999), 1e-8


class AdamW:
    """The moments of some parameters, and the number of steps of each."""

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float) -> None:
        self._parameters, self._weight_decay = list(parameters), weight_decay
        self._means = [torch.zeros_like(one) for one in self._parameters]
        self._squares = [torch.zeros_like(one) for one in self._parameters]
        self._steps = [torch.zeros(()) for _ in self._parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self._parameters:
            one.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change the parameters that have a gradient."""
        used = [place for place, one in enumerate(self._parameters) if one.grad is not None]

        def of(values: Sequence[Tensor]) -> list[Tensor]:
            return [values[place] for place in used]

        gradients = [one.grad for one in self._parameters if one.grad is not None]
        adamw(
            of(self._parameters), gradients, of(self._means), of(self._squares), [], of(self._steps),
            foreach=False, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=learning_rate,
            weight_decay=self._weight_decay, eps=EPSILON, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, list[Tensor]]:
        """The moments and the steps, by name, in the order of the parameters."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def restore(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Continue from what `state` returned."""
        for name, values in self.state().items():
            for own, value in zip(values, state[name], strict=True):
                own.copy_(value)
