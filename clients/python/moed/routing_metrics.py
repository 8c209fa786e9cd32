"""How decisive, how even and how specialised a router is. Plain numpy.

In bits (arXiv 2302.14703), unless a name says nats.

Perfect use of E experts: H_s = 0 and H_u = I(E;Y) = log2 E (if there are at least E classes).
"""

import numpy as np


def entropy_bits(p):
    """-sum p log2 p over the last axis; 0 log 0 is 0."""
    p = np.asarray(p, dtype=np.float64)
    return -np.sum(p * np.log2(np.where(p > 0, p, 1.0)), axis=-1)


def gate_entropy_bits(probabilities):
    """H_s: mean over rows of the entropy of the gate's distribution. Low means decisive."""
    return float(entropy_bits(probabilities).mean())


def usage_entropy_bits(probabilities):
    """H_u: entropy of the mean distribution over all rows given. Low means few experts carry the traffic."""
    return float(entropy_bits(np.asarray(probabilities, dtype=np.float64).mean(axis=0)))


def mutual_information_bits(experts, classes, expert_count, class_count):
    """I(E;Y) = H(E) + H(Y) - H(E,Y) from one (expert, class) pair per row.

    In the paper e is the gate's first choice and y the class which *that expert alone* predicts: not the label, and
    not the mixture's prediction.
    """
    counts = np.zeros((class_count, expert_count))
    np.add.at(counts, (np.asarray(classes), np.asarray(experts)), 1)
    joint = counts / counts.sum()
    return float(entropy_bits(joint.sum(axis=0)) + entropy_bits(joint.sum(axis=1)) - entropy_bits(joint.ravel()))


def dispatch_entropy_nats(table):
    """Eq. 6.1 of Chen et al. 2022 (arXiv 2208.02813), in NATS: 0 if every expert sees a single cluster, at most ln K.

    `table` (K clusters, E experts) counts rows; H = sum_e (n_e / n) H(cluster | e). Experts without rows count nothing.
    """
    table = np.asarray(table, dtype=np.float64)
    per_expert = table.sum(axis=0)
    used = per_expert > 0
    shares = table[:, used] / per_expert[used]
    entropies = entropy_bits(shares.T) * np.log(2)
    return float(np.sum(per_expert[used] / table.sum() * entropies))


def area_under_curve(scores, labels):
    """Area under the ROC curve: how often a row of class 1 scores above one of class 0, ties counting half."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = int((labels == 1).sum())
    negative = len(labels) - positive
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))
