"""Regularisers that keep a gate from collapsing onto few experts. `p` is Routing.probabilities, (rows, E).

Add one of them, times its coefficient, to the task loss. Names and forms follow arXiv 2302.14703, whose L_importance
is that of Shazeer et al. 2017.
"""

import torch


def importance_loss(p):
    """L_importance = (std(I) / mean(I))^2 with I_i = sum over rows of p_i: the squared coefficient of variation.

    The standard deviation is the unbiased one (divided by E - 1), as in the authors' code. 0 for even use.
    """
    importance = p.sum(dim=0)
    return importance.var(unbiased=True) / importance.mean() ** 2


def balance_loss(p):
    """sum_i (1/E - mean_rows p_i)^2: the load-balancing loss of introductory texts.

    It is the same quantity on another scale: the biased CV^2 divided by E, that is importance_loss * (E - 1) / E^2.
    """
    return ((1.0 / p.shape[1] - p.mean(dim=0)) ** 2).sum()


def pairwise_distance(x):
    """Euclidean distances between all rows (flattened), divided by the largest in the batch: (rows, rows)."""
    flat = x.flatten(1)
    squares = (flat * flat).sum(dim=1)
    # |a|^2 + |b|^2 - 2ab, some fifty times faster than subtracting pairs; what cancellation does to the distances of
    # nearly equal rows does not matter to a sum over all pairs, but the diagonal is exactly zero.
    distance = (squares[:, None] + squares[None, :] - 2 * flat @ flat.t()).clamp_min(0).sqrt().fill_diagonal_(0)
    return distance / distance.max().clamp_min(torch.finfo(distance.dtype).tiny)


def sample_similarity_loss(p, distance, beta_same, beta_different, divide="different"):
    """L_s: pulls similar rows into the same expert and pushes dissimilar rows into different ones.

    With D = `distance` (see pairwise_distance), B rows and E experts:
        S = sum_{x,x'} 1/E         sum_i      p_i(x) p_i(x') D(x,x')    rows in the same expert
        R = sum_{x,x'} 1/(E^2 - E) sum_{i!=j} p_i(x) p_j(x') D(x,x')    rows in different experts
    divide="different": L_s = beta_same * S - beta_different * R / B^2. This is what the authors' code computes: there
        the division binds to R alone, and their grids (beta_same 1e-7..1e-3, beta_different up to 1e-1) fit it.
    divide="both":      L_s = (beta_same * S - beta_different * R) / B^2. Both terms are means over pairs, so the
        coefficients keep their meaning when the batch size changes.
    """
    if divide not in ("different", "both"):
        raise ValueError(f"divide is {divide!r}; it must be different or both")
    rows, count = p.shape
    pairs = p.t() @ distance @ p  # (E, E): sum over x, x' of p_i(x) D(x,x') p_j(x')
    same = pairs.diagonal().sum()
    different = (pairs.sum() - same) / (count * count - count)
    same = same / count
    if divide == "both":
        same = same / rows ** 2
    return beta_same * same - beta_different * different / rows ** 2
