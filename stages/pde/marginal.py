"""Length-scales, scale and noise of a Gaussian process by its marginal likelihood (type II maximum likelihood).

Values on a complete grid use the Kronecker structure of the kernel; others a dense matrix of at most DENSE_LIMIT
points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from stages.pde import kernels
from stages.pde.kernel_names import KernelName

Array = NDArray[np.float64]
DENSE_LIMIT = 1200  # points of the dense likelihood; of more, as many are drawn
JITTER = 1e-10


@dataclass(frozen=True)
class Fit:
    """Hyper-parameters, and the log marginal likelihood that they have."""

    lengths: tuple[float, ...]
    scale: float
    noise: float
    log_likelihood: float


def fit(
    kernel: KernelName, points: Array, values: Array, ranges: Sequence[float], starts: int, seed: int
) -> tuple[Fit, list[float]]:
    """The best of several searches, and the log likelihood of each. `values` have mean 0; `ranges` of the
    coordinates."""
    generator = np.random.default_rng([seed, 13])
    spread = float(values.std()) or 1.0
    table = _grid(points, values)
    if table is None and len(points) > DENSE_LIMIT:
        chosen = np.sort(generator.choice(len(points), DENSE_LIMIT, replace=False))
        points, values = points[chosen], values[chosen]
    tensors = torch.from_numpy(points), torch.from_numpy(values)
    shares = [0.2, 0.1, 0.5]
    found = []
    bounds = [(math.log(0.02 * one), math.log(2 * one)) for one in ranges]
    bounds += [(math.log(0.05 * spread), math.log(20 * spread)), (math.log(1e-5 * spread), math.log(1.5 * spread))]
    for number in range(starts):
        share = shares[number] if number < len(shares) else float(generator.uniform(0.05, 0.7))
        start = [math.log(share * one) for one in ranges] + [math.log(spread), math.log(0.1 * spread)]
        if table is not None:
            result = minimize(lambda x: -_kronecker(kernel, x, *table), start, method="L-BFGS-B", bounds=bounds)
        else:
            result = minimize(
                lambda x: _dense(kernel, x, tensors[0], tensors[1]), start, jac=True, method="L-BFGS-B", bounds=bounds
            )
        lengths = tuple(np.exp(result.x[:-2]).tolist())
        found.append(Fit(lengths, math.exp(result.x[-2]), math.exp(result.x[-1]), -float(result.fun)))
    return max(found, key=lambda one: one.log_likelihood), [one.log_likelihood for one in found]


def _grid(points: Array, values: Array) -> tuple[list[Tensor], Tensor] | None:
    """The coordinates and the table of values on a complete grid without replicates; None for other points."""
    axes = [np.unique(points[:, axis]) for axis in range(points.shape[1])]
    if math.prod(len(one) for one in axes) != len(points) or len(np.unique(points, axis=0)) != len(points):
        return None
    order = np.lexsort(points.T[::-1])
    return [torch.from_numpy(one) for one in axes], torch.from_numpy(values[order].reshape([len(one) for one in axes]))


def _kronecker(kernel: KernelName, x: Array, axes: list[Tensor], table: Tensor) -> float:
    scale, noise = math.exp(2 * x[-2]), math.exp(2 * x[-1])
    rotated, eigenvalues = table, torch.ones((), dtype=torch.float64)
    for axis, (nodes, length) in enumerate(zip(axes, np.exp(x[:-2]), strict=True)):
        each, vectors = torch.linalg.eigh(kernels.covariance(kernel, nodes, nodes, float(length)))
        rotated = torch.tensordot(rotated, vectors, dims=([0], [0]))  # the axes take turns
        eigenvalues = eigenvalues[..., None] * each
        del axis
    total = scale * eigenvalues.clamp(min=0) + noise + JITTER * scale
    return float(
        -0.5 * (rotated.square() / total).sum() - 0.5 * total.log().sum() - 0.5 * table.numel() * math.log(2 * math.pi)
    )


def _dense(kernel: KernelName, x: Array, points: Tensor, values: Tensor) -> tuple[float, Array]:
    logs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    matrix = (2 * logs[-2]).exp() * torch.ones((len(points), len(points)), dtype=torch.float64)
    for axis in range(points.shape[1]):
        matrix = matrix * kernels.covariance(kernel, points[:, axis], points[:, axis], logs[axis].exp())
    matrix = matrix + torch.diag(((2 * logs[-1]).exp() + JITTER * (2 * logs[-2]).exp()).expand(len(points)))
    lower, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        return 1e12, np.zeros(len(x))
    solved = torch.linalg.solve_triangular(lower, values[:, None], upper=False)
    loss = 0.5 * solved.square().sum() + lower.diagonal().log().sum() + 0.5 * len(values) * math.log(2 * math.pi)
    (gradient,) = torch.autograd.grad(loss, logs)
    return float(loss.detach()), gradient.numpy().astype(np.float64)
