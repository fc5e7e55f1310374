"""Sparse matrices with fixed places, whose values may be learned: products that never form a dense matrix."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Where the entries of a sparse matrix [rows, columns] are: in rows, and in ascending columns within a row."""

    starts: Tensor  # [rows + 1] int64: place of the first entry of each row
    columns: Tensor  # [entries] int64
    width: int  # columns of the matrix

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.starts) - 1, self.width

    @cached_property
    def rows(self) -> Tensor:
        """The row of each entry [entries]."""
        return torch.repeat_interleave(torch.arange(self.shape[0]), self.starts.diff())

    @cached_property
    def transposed(self) -> tuple[Places, Tensor]:
        """The places of the transposed matrix, and the entry of this one that each of its entries is."""
        order = torch.argsort(self.columns, stable=True)
        starts = torch.zeros(self.width + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(self.columns, minlength=self.width).cumsum(0)
        return Places(starts, self.rows[order], self.shape[0]), order

    def select(self, rows: Tensor) -> tuple[Places, Tensor]:
        """The places of some rows, in the order given, and the entry of this matrix that each of their entries is."""
        lengths = self.starts.diff()[rows]
        starts = torch.zeros(len(rows) + 1, dtype=torch.int64)
        starts[1:] = lengths.cumsum(0)
        entries = torch.arange(int(starts[-1])) + torch.repeat_interleave(self.starts[rows] - starts[:-1], lengths)
        return Places(starts, self.columns[entries], self.width), entries

    def compact(self) -> tuple[Places, Tensor]:
        """The places without empty columns, and the columns that remain, in ascending order."""
        kept, columns = torch.unique(self.columns, return_inverse=True)
        return Places(self.starts, columns, len(kept)), kept

    def matrix(self, values: Tensor) -> Tensor:
        """The matrix with these values [entries], in torch's CSR layout."""
        with warnings.catch_warnings():  # that the layout is in beta
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(self.starts, self.columns, values, self.shape, check_invariants=False)


def places_of(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> tuple[Places, Tensor]:
    """The distinct places among pairs of a row and a column, and how often each occurs."""
    keys, counts = torch.unique(rows * shape[1] + columns, return_counts=True)
    starts = torch.zeros(shape[0] + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(keys // shape[1], minlength=shape[0]).cumsum(0)
    return Places(starts, keys % shape[1], shape[1]), counts


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix of constants: the features of entities, one a row."""

    places: Places
    values: Tensor  # [entries]

    @property
    def width(self) -> int:
        return self.places.width

    def select(self, rows: Tensor) -> SparseRows:
        places, entries = self.places.select(rows)
        return SparseRows(places, self.values[entries])

    def __matmul__(self, dense: Tensor) -> Tensor:
        return product(self.places, self.values, dense)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, places: Places, values: Tensor, dense: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.places = places
        ctx.save_for_backward(values, dense)
        return places.matrix(values) @ dense

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        places: Places = ctx.places
        values, dense = ctx.saved_tensors
        of_values = of_dense = None
        if ctx.needs_input_grad[1]:  # the inner products at the places alone
            zeros = places.matrix(torch.zeros_like(values))
            of_values = torch.sparse.sampled_addmm(zeros, gradient.contiguous(), dense.t()).values()
        if ctx.needs_input_grad[2]:
            transposed, order = places.transposed
            of_dense = transposed.matrix(values[order]) @ gradient
        return None, of_values, of_dense


def product(places: Places, values: Tensor, dense: Tensor) -> Tensor:
    """The sparse matrix with `values` at `places`, times `dense` [columns, d]: [rows, d]. Both may need gradients."""
    found: Tensor = _Product.apply(places, values, dense)  # type: ignore[no-untyped-call]
    return found
