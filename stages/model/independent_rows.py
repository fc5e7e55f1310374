"""Operations whose result for one row does not depend on the rows that are computed with it, not even in the last bit.

torch's kernels choose their order of summation, and the implementation of a function, by the size of a whole tensor. A
sequence would get other last bits alone than in a batch, and a prompt other ones if it is read in other pieces. Without
gradients, on CPUs, the functions here do not depend on the number of rows:

- Products are computed by oneDNN with at least `ROWS` rows, from where on it sums each row in the same order.
- One token of each sequence attends to the keys of its sequence, in one call for each sequence. Several tokens of a
  sequence go through its keys in blocks of `KEYS`: a block after the last key that they see adds exactly nothing.
- Activations are computed in pieces of whole vectors, since torch computes what is left of a tensor in another way.

With gradients, and on GPUs, these are torch's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  # torch's customary name
from torch import Tensor

from stages.model.footprint import ATTENDING_QUERIES

ROWS = 2  # the fewest rows of a product
VECTORS = 64  # numbers that a kernel computes at a time: pieces are a multiple of it
PIECE = 32768  # numbers that torch computes in one thread
KEYS = 64  # keys in a block of attention
QUERY_ROWS = 4  # queries are filled up to a multiple of this, from where on MKL sums each in the same order


def silu(x: Tensor) -> Tensor:
    """`F.silu`: each number times its logistic function."""
    return F.silu(x) if _as_in_training(x) else _in_pieces(torch.ops.aten.silu_, x)


def gelu_tanh(x: Tensor) -> Tensor:
    """`F.gelu` with its approximation by tanh. BLOOM's constant 0.79788456 is sqrt(2 / pi) in float32."""
    if _as_in_training(x):
        return F.gelu(x, approximate="tanh")
    return _in_pieces(partial(torch.ops.aten.gelu_, approximate="tanh"), x)


def _in_pieces(function: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """A new tensor: `x` after `function`, which changes the numbers of a tensor in place."""
    width = x.shape[-1]
    if width % VECTORS == 0 and x.numel() <= PIECE:  # a single piece
        whole = x.clone(memory_format=torch.contiguous_format)
        function(whole)
        return whole
    rows = F.pad(x, (0, -width % VECTORS)).view(-1, width + -width % VECTORS)  # F.pad copies, also by 0
    for piece in rows.split(max(1, PIECE // rows.shape[1])):
        function(piece)
    return rows[:, :width].view(x.shape) if width == rows.shape[1] else rows[:, :width].reshape(x.shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., in] times the transpose of `weight` [out, in], plus `bias` [out]: [..., out]."""
    if _as_in_training(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    filled = rows if len(rows) >= ROWS else rows.repeat(ROWS, 1)
    # F.linear itself uses oneDNN for bfloat16, and MKL for float32.
    by_onednn = torch.ops.mkldnn._linear_pointwise
    product: Tensor = (
        by_onednn(filled, weight, bias, "none", [], "")
        if x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        else F.linear(filled, weight, bias)
    )
    return product[: len(rows)].view(*x.shape[:-1], -1)


def attention(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, lengths: list[int]) -> Tensor:
    """Attention of the tokens of a pass to the cached keys and values.

    query: [batch, heads, length, head size]. keys, values: [batch, key-value heads, extent, head size], where each
    key-value head serves a group of query heads. bias: [batch or 1, heads or 1, length, extent], added to the scores.
    lengths: of each sequence, this pass included. Returns [batch, heads, length, head size].
    """
    grouped = query.shape[1] != keys.shape[1]
    if _as_in_training(query):
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, enable_gqa=grouped)
    if query.shape[2] == 1:
        biases = bias.expand(len(query), -1, -1, -1)
        # Indexed row by row: for a small model, `split` and its views take as long as attention itself.
        mixed = [
            F.scaled_dot_product_attention(
                query[row : row + 1],
                keys[row : row + 1, :, :length],
                values[row : row + 1, :, :length],
                attn_mask=biases[row : row + 1, :, :, :length],
                enable_gqa=grouped,
            )
            for row, length in enumerate(lengths)
        ]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    parts = zip(query.split(ATTENDING_QUERIES, 2), bias.split(ATTENDING_QUERIES, 2), strict=True)
    mixed = [_attend(_filled_up(part), keys, values, _filled_up(of_part)) for part, of_part in parts]
    return torch.cat(mixed, 2)[:, :, : query.shape[2]]


def _attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """`attention` of a few queries, whose number is a multiple of `QUERY_ROWS`. Scores and sums are float32."""
    batch, heads, length, size = query.shape
    grouped = (query.float() * size**-0.5).reshape(
        batch * keys.shape[1], -1, size
    )  # one matrix for each group of heads
    blocks = [tuple(map(_block, pair)) for pair in zip(keys.split(KEYS, 2), values.split(KEYS, 2), strict=True)]
    scores = torch.cat([_products(grouped, block.transpose(1, 2)) for block, _ in blocks], -1)
    missing = scores.shape[-1] - bias.shape[-1]  # the cache may end within a block
    bias = F.pad(bias, (0, missing), value=-torch.inf) if missing else bias
    weights = (scores.view(batch, heads, length, -1) + bias).softmax(-1).view(scores.shape)
    first, *others = weights.split(KEYS, -1)
    mixed = _products(first, blocks[0][1])
    for part, (_, block) in zip(others, blocks[1:], strict=True):
        mixed += _products(part, block)
    return mixed.view(batch, heads, length, size).to(query.dtype)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm`. A single product is computed twice: alone, it would be divided among threads."""
    if len(left) == 1:
        return torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1))[:1]
    return torch.bmm(left, right)


def _block(block: Tensor) -> Tensor:
    """A block of keys or values [batch, heads, up to KEYS, size] as float32 [batch x heads, KEYS, size]."""
    missing = KEYS - block.shape[2]
    return (F.pad(block, (0, 0, 0, missing)) if missing else block).float().flatten(0, 1)


def _filled_up(rows: Tensor) -> Tensor:
    """`rows` [..., rows, numbers] with zeros after them, so that their number is a multiple of `QUERY_ROWS`."""
    missing = -rows.shape[-2] % QUERY_ROWS
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def _as_in_training(x: Tensor) -> bool:
    return torch.is_grad_enabled() or x.device.type != "cpu"
