"""Regularisers that keep a gate from collapsing onto few experts. `p` is Routing.probabilities, (rows, E).

Add one of them, times its coefficient, to the task loss. After a forward pass of a MoE layer `moe`:

    importance_loss(p), balance_loss(p)                    p = moe.routing.probabilities
    sample_similarity_loss(p, distance, ...)               distance = pairwise_distance(inputs)
    switch_loss(p, moe.routing.experts)                    coefficient 0.01
    noisy_top_k_loss(moe)                                  coefficient 0.01; the gate has moed.noise.GaussianNoise
    z_loss(moe.logits)                                     coefficient 0.001, added to one of the others
"""

import torch

# Keeps the coefficient of variation of nothing finite (tensor2tensor's value).
CV_EPSILON = 1e-10


def importance_loss(p):
    """L_importance = (std(I) / mean(I))^2 with I_i = sum over rows of p_i: the squared coefficient of variation.

    In the form of arXiv 2302.14703: the standard deviation is the unbiased one (divided by E - 1). 0 for even use.
    """
    importance = p.sum(dim=0)
    return importance.var(unbiased=True) / importance.mean() ** 2


def balance_loss(p):
    """sum_i (1/E - mean_rows p_i)^2: the load-balancing loss of introductory texts.

    It is the same quantity on another scale: the biased CV^2 divided by E, that is importance_loss * (E - 1) / E^2.
    """
    return ((1.0 / p.shape[1] - p.mean(dim=0)) ** 2).sum()


def pairwise_distance(x, scaled=True):
    """Euclidean distances between all rows (flattened): (rows, rows).

    scaled  divide by the largest in the batch, so that coefficients do not depend on the data's range. The authors'
            code does so since 20 September 2022; their published results were made before that, without.
    """
    flat = x.flatten(1)
    squares = (flat * flat).sum(dim=1)
    # |a|^2 + |b|^2 - 2ab, some fifty times faster than subtracting pairs; what cancellation does to the distances of
    # nearly equal rows does not matter to a sum over all pairs, but the diagonal is exactly zero.
    distance = (squares[:, None] + squares[None, :] - 2 * flat @ flat.t()).clamp_min(0).sqrt().fill_diagonal_(0)
    return distance / distance.max().clamp_min(torch.finfo(distance.dtype).tiny) if scaled else distance


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


def switch_loss(p, experts):
    """E * sum_i f_i P_i, f_i the choices of expert i per row, P_i the mean of p_i (Switch Transformers, 2101.03961).

    `experts` are the selected ones, (rows, k). Even use gives k: 1 for Switch's top-1, and k in the form of Mixtral and
    its family, which counts every one of the k choices. f has no gradient; it weighs that of P.
    """
    rows, count = p.shape
    chosen = torch.bincount(experts.flatten(), minlength=count).to(p.dtype) / rows
    return count * (chosen * p.mean(dim=0)).sum()


def z_loss(logits):
    """mean of (log sum_i exp h_i)^2: keeps the logits small, and with them their rounding (ST-MoE, 2202.08906)."""
    return torch.logsumexp(logits, dim=-1).square().mean()


def cv_squared(v):
    """The squared coefficient of variation with the population variance, as tensor2tensor has it."""
    return v.var(unbiased=False) / (v.mean() ** 2 + CV_EPSILON)


def expected_load(clean, noisy, deviation, top_k):
    """(E): how many rows are expected to select each expert, as a smooth function of the logits (Shazeer et al. 2017).

    P(x, i) is the probability that expert i is among the top k if its noise alone is drawn anew: that its clean logit
    plus noise of standard deviation `deviation` exceeds the k-th best noisy logit of the others.
    """
    best = noisy.topk(top_k + 1, dim=-1).values
    last_in, first_out = best[:, top_k - 1:top_k], best[:, top_k:]
    threshold = torch.where(noisy > first_out, first_out, last_in)
    return torch.distributions.Normal(0.0, 1.0).cdf((clean - threshold) / deviation).sum(dim=0)


def noisy_top_k_loss(moe):
    """CV^2(importance) + CV^2(load) of a MoE layer after a training pass with GaussianNoise and top_k < E.

    Importance is the sum of combine weights. It alone would allow one row of weight 1 to balance ten of weight 0.1; the
    load counts them.
    """
    noise, routing = moe.gate.noise, moe.routing
    weights = torch.zeros_like(moe.logits).scatter(-1, routing.experts, routing.weights)
    load = expected_load(noise.clean, moe.logits, noise.deviation, moe.gate.top_k)
    return cv_squared(weights.sum(dim=0)) + cv_squared(load)
