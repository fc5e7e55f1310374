"""Kernels of one coordinate and their derivatives. A kernel of several coordinates is the product of these.

All are functions of r = (x - y) / length-scale with k(0) = 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stages.pde.kernel_names import KernelName

# sqrt(2 nu), and the coefficients of the polynomial p (lowest power first) in k = p(c r) exp(-c r).
MATERN: dict[str, tuple[float, tuple[float, ...]]] = {
    "matern_5_2": (math.sqrt(5), (1, 1, 1 / 3)),
    "matern_7_2": (math.sqrt(7), (1, 1, 2 / 5, 1 / 15)),
    "matern_9_2": (3.0, (1, 1, 3 / 7, 2 / 21, 1 / 105)),
    "matern_11_2": (math.sqrt(11), (1, 1, 4 / 9, 1 / 9, 1 / 63, 1 / 945)),
}


def largest_order(kernel: KernelName) -> int:
    """The highest derivative along one coordinate that a process with this kernel has."""
    return 99 if kernel == "rbf" else len(MATERN[kernel][1]) - 1


def covariance(kernel: KernelName, x: Tensor, y: Tensor, length: Tensor | float, order: int = 0) -> Tensor:
    """d^order/dx^order k(x, y) for coordinates x [n] and y [m]: [n, m]."""
    r = (x[:, None] - y[None, :]) / length
    values = _rbf(r, order) if kernel == "rbf" else _matern(kernel, r, order)
    return values / length**order


def shared_variance(kernel: KernelName, length: float, order: int, other: int) -> float:
    """The prior covariance, at one point, of two derivatives of a process with variance 1:
    (-1)^other k^(order + other)(0)."""
    if (order + other) % 2:
        return 0.0
    zero = torch.zeros(1, dtype=torch.float64)
    return (-1.0) ** other * float(covariance(kernel, zero, zero, length, order + other))


def _rbf(r: Tensor, order: int) -> Tensor:
    before, hermite = torch.zeros_like(r), torch.ones_like(r)  # exp(-r^2/2) times Hermite polynomials
    for degree in range(order):
        before, hermite = hermite, -r * hermite - degree * before
    return hermite * torch.exp(-0.5 * r * r)


def _matern(kernel: KernelName, r: Tensor, order: int) -> Tensor:
    c, polynomial = MATERN[kernel]
    coefficients = list(polynomial)
    for _ in range(order):  # (p e^-s)' = (p' - p) e^-s with s = c |r|
        derived = [*(power * value for power, value in enumerate(coefficients) if power), 0.0]
        coefficients = [one - other for one, other in zip(derived, coefficients, strict=True)]
    s = c * r.abs()
    value = torch.zeros_like(r)
    for coefficient in reversed(coefficients):
        value = value * s + coefficient
    sign = torch.where(r < 0, -1.0, 1.0).to(r.dtype) if order % 2 else 1.0
    return value * torch.exp(-s) * (c**order) * sign
