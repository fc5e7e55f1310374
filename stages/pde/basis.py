"""The Karhunen-Loeve expansion of a Gaussian process on space-time, and its derivatives at any point.

On nodes of each coordinate, the kernel matrix has the eigenpairs (lambda, v). phi(x) = k(x, nodes) v / sqrt(lambda)
then has any derivative that the kernel has. The process is mean + scale * sum_m phi_m z_m with z ~ N(0, 1), in which
every m is a product of one such function for each coordinate. No matrix is larger than nodes x nodes of one
coordinate.

A coordinate with an `origin` o has the kernel of l = log(x - o): its length-scale grows in proportion to x - o, for
solutions that begin rough and become smooth. With s(n, k) the signed Stirling numbers of the first kind,

    d^n f / dx^n = (x - o)^-n sum_k s(n, k) d^k f / dl^k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.pde import kernels
from stages.pde.kernel_names import KernelName

CONSTANT = -1  # in place of an eigenfunction's number
SMALLEST_EIGENVALUE = 1e-11  # relative to the largest of a coordinate: what float64 can tell from rounding


@dataclass(frozen=True)
class Coordinate1D:
    """The eigenfunctions of one coordinate: `weights` [nodes, functions], so that phi(x) = k(x, nodes) weights.

    `length` is in units of the coordinate, with an `origin` in units of log(x - origin).
    """

    kernel: KernelName
    length: float
    nodes: Tensor
    origin: float | None
    eigenvalues: Tensor
    weights: Tensor

    def functions(self, x: Tensor, order: int = 0) -> Tensor:
        """d^order phi_m / dx^order at x [n]: [n, functions]."""
        values = torch.zeros((len(x), len(self.nodes)), dtype=torch.float64)
        for place, factor in enumerate(self._chain(x, order)):
            if factor is not None:
                values += factor[:, None] * kernels.covariance(
                    self.kernel, _warped(x, self.origin), _warped(self.nodes, self.origin), self.length, place
                )
        return values @ self.weights

    def variance(self, x: Tensor, order: int) -> Tensor:
        """The prior variance of a derivative at x [n], of a process with variance 1: [n]."""
        factors, found = self._chain(x, order), torch.zeros(len(x), dtype=torch.float64)
        for place, one in enumerate(factors):
            for other, another in enumerate(factors):
                if one is not None and another is not None:
                    found += one * another * kernels.shared_variance(self.kernel, self.length, place, other)
        return found

    def _chain(self, x: Tensor, order: int) -> list[Tensor | None]:
        """What multiplies each derivative of the kernel's coordinate in that of x: [n] each, None where it is zero."""
        if self.origin is None:
            return [*[None] * order, torch.ones_like(x)]
        numbers = [1]  # s(order, k)
        for n in range(order):
            numbers = [a - n * b for a, b in zip([0, *numbers], [*numbers, 0], strict=True)]
        return [number * (x - self.origin) ** -order if number else None for number in numbers]


def coordinate(kernel: KernelName, length: float, nodes: Tensor, origin: float | None = None) -> Coordinate1D:
    """The eigenfunctions of a kernel on nodes. Those that rounding would decide are left out."""
    warped = _warped(nodes, origin)
    matrix = kernels.covariance(kernel, warped, warped, length)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)
    kept = int((eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[0]).sum())
    eigenvalues, vectors = eigenvalues[:kept], vectors[:, :kept]
    return Coordinate1D(kernel, length, nodes, origin, eigenvalues, vectors / eigenvalues.sqrt())


def _warped(x: Tensor, origin: float | None) -> Tensor:
    return x if origin is None else (x - origin).log()


@dataclass(frozen=True)
class Basis:
    """The functions of one component: `modes` [M, coordinates] has the eigenfunction of each coordinate. A mode of
    CONSTANT is the constant function, whose coefficient is an unknown mean."""

    coordinates: tuple[Coordinate1D, ...]
    modes: Tensor
    mean: float
    scale: float
    energy: float  # the smallest share of the prior energy, of the derivatives that were asked for, that is kept
    mean_sd: float = 0.0  # of a mean that is one of the coefficients, around `mean`; 0: the mean is known

    @property
    def size(self) -> int:
        return len(self.modes)

    def at(self, points: Tensor, orders: Sequence[int]) -> Tensor:
        """The derivatives of the functions at points [n, coordinates]: [n, M]. `mean` is not part of it."""
        found = torch.full((len(points), self.size), self.scale, dtype=torch.float64)
        for axis, (one, order) in enumerate(zip(self.coordinates, orders, strict=True)):
            found = found * one.functions(points[:, axis], order)[:, self.modes[:, axis]]
        found[:, self.modes[:, 0] == CONSTANT] = 0.0 if any(orders) else self.mean_sd
        return found

    def constant(self, orders: Sequence[int]) -> float:
        """The derivative of the mean."""
        return 0.0 if any(orders) else self.mean

    def variance(self, points: Tensor, orders: Sequence[int]) -> Tensor:
        """The prior variance of a derivative at points [n, coordinates]: [n]."""
        found = torch.full((len(points),), self.scale**2, dtype=torch.float64)
        for axis, (one, order) in enumerate(zip(self.coordinates, orders, strict=True)):
            found = found * one.variance(points[:, axis], order)
        return found if any(orders) else found + self.mean_sd**2


def basis(
    coordinates: Sequence[Coordinate1D],
    mean: float,
    scale: float,
    orders: Sequence[Sequence[int]],
    energy: float,
    most_modes: int,
    mean_sd: float = 0.0,
) -> Basis:
    """The modes that keep the share `energy` of the process and of each of its derivatives `orders`, at most
    `most_modes` of them. A mode's rank is its largest share of the energy of any of these derivatives. `mean_sd` adds
    the constant function."""
    shape = [len(one.eigenvalues) for one in coordinates]
    shares = []
    for each in {tuple(0 for _ in coordinates), *map(tuple, orders)}:
        product = torch.ones((), dtype=torch.float64)
        for one, order in zip(coordinates, each, strict=True):
            along = one.functions(one.nodes, order).square().mean(0)
            product = product[..., None] * along
        shares.append(product.flatten() / product.sum())
    ranked = torch.stack(shares).amax(0).argsort(descending=True, stable=True)
    kept = torch.stack(shares)[:, ranked].cumsum(1).amin(0)
    size = min(int((kept < energy).sum()) + 1, most_modes, len(ranked))
    modes = torch.stack(torch.unravel_index(ranked[:size], shape), dim=1)
    if mean_sd:
        modes = torch.nn.functional.pad(modes, (0, 0, 1, 0), value=CONSTANT)
    return Basis(tuple(coordinates), modes, mean, scale, float(kept[size - 1]), mean_sd)
