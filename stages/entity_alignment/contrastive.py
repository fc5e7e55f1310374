"""The contrastive loss of pairs (intra-modal contrastive loss, Lin et al. 2022), with its gradient in one pass.

For unit vectors a_k and b_k of n pairs, the logits of a_k are [a_k . b, a_k . a without itself, a_k . negatives] over
the temperature, its target is k; the same from b; the loss is the mean of both directions. A matrix of logits is
formed, used and dropped before the next one: the gradient is computed in the forward pass, where its softmax is at
hand. The two directions share a . b, and the gradient through a . a^T uses that it is symmetric.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, temperature, weights, negatives_a, negatives_b):  # type: ignore[no-untyped-def]
        n = len(a)
        cross = a @ b.t() / temperature
        total, gradients = a.new_zeros(()), []
        of_cross = torch.zeros_like(cross)
        for own, scores, negatives in ((a, cross, negatives_a), (b, cross.t(), negatives_b)):
            same = own @ own.t() / temperature
            same.fill_diagonal_(-torch.inf)
            logits = torch.cat([scores, same, *(() if negatives is None else (own @ negatives.t() / temperature,))], 1)
            shift = logits.logsumexp(dim=1)
            total = total + ((shift - scores.diagonal()) * weights).sum() / (2 * n)
            logits.sub_(shift.unsqueeze(1)).exp_()  # softmax
            logits.diagonal().sub_(1)
            logits.mul_((weights / (2 * n * temperature)).unsqueeze(1))
            inner = logits[:, n : 2 * n]
            of_own = (inner + inner.t()) @ own
            if negatives is None:
                gradients.append((of_own, None))
            else:
                outer = logits[:, 2 * n :]
                gradients.append((of_own + outer @ negatives, outer.t() @ own))
            of_cross += logits[:, :n] if own is a else logits[:, :n].t()
        (of_a, of_negatives_a), (of_b, of_negatives_b) = gradients
        of_a += of_cross @ b
        of_b += of_cross.t() @ a
        ctx.save_for_backward(of_a, of_b, of_negatives_a, of_negatives_b)
        return total

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        of_a, of_b, of_negatives_a, of_negatives_b = (
            None if one is None else one * gradient for one in ctx.saved_tensors
        )
        return of_a, of_b, None, None, of_negatives_a, of_negatives_b


def contrastive(
    a: Tensor,
    b: Tensor,
    temperature: float,
    weights: Tensor | None = None,
    negatives: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The loss of n pairs of vectors [n, d], which are scaled to length 1 here.

    `weights` [n]: of the pairs; constants. `negatives`: further vectors [any, d] against a, and against b.
    """
    a, b = F.normalize(a), F.normalize(b)
    if weights is None:
        weights = a.new_ones(len(a))
    more = (None, None) if negatives is None else tuple(F.normalize(one) for one in negatives)
    loss: Tensor = _Contrastive.apply(a, b, temperature, weights.detach(), *more)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def hardest(a: Tensor, b: Tensor, negatives: Tensor | None) -> Tensor:
    """For each a_k, the most similar vector that is not b_k or itself: its place in [b, a, negatives] [n]."""
    a, b = F.normalize(a), F.normalize(b)
    scores = a @ torch.cat([b, a, *(() if negatives is None else (F.normalize(negatives),))]).t()
    n = len(a)
    scores[:, :n].fill_diagonal_(-torch.inf)
    scores[:, n : 2 * n].fill_diagonal_(-torch.inf)
    return scores.argmax(dim=1)


def distilled(a: Tensor, b: Tensor, teacher_a: Tensor, teacher_b: Tensor, temperature: float) -> Tensor:
    """How far the similarities of one modality are from those of the joint vectors (inter-modal alignment, MCLEA): the
    mean over both directions of the Kullback-Leibler divergence. The joint vectors are constants here."""
    student = F.normalize(a) @ F.normalize(b).t() / temperature
    with torch.no_grad():
        teacher = F.normalize(teacher_a) @ F.normalize(teacher_b).t() / temperature
    directions = ((student, teacher), (student.t(), teacher.t()))
    found = [
        F.kl_div(F.log_softmax(one, 1), F.log_softmax(other, 1), reduction="batchmean", log_target=True)
        for one, other in directions
    ]
    return (found[0] + found[1]) / 2
