"""The numbers that the papers report, for comparison with ours.

Paper 1: arXiv 2302.14703, from the stored outputs of the authors' notebooks (yamsgithub/modular_deep_learning, branch
aistats2023). Each row is the run with the least training error among all runs and coefficients of its kind; `spread` is
the standard deviation of the test error over all those runs. I, H_s, H_u in bits.
Paper 2: arXiv 2208.02813, its table and the outputs of the authors' notebooks (uclaml/MoE). Accuracies in per cent;
dispatch entropy in nats.
"""

from typing import NamedTuple, Optional


class Mixture(NamedTuple):
    title: str
    train_error: float
    test_error: float
    spread: float
    mutual_information_bits: Optional[float] = None
    gate_entropy_bits: Optional[float] = None
    usage_entropy_bits: Optional[float] = None


MNIST = {
    "single": Mixture("one expert", 0.097, 0.096, 0.071),
    "moe": Mixture("mixture", 0.021, 0.038, 0.009, 2.022, 0.092, 2.172),
    "moe-importance": Mixture("mixture, L_imp (0.2)", 0.015, 0.032, 0.008, 2.262, 0.061, 2.320),
    "moe-similarity": Mixture("mixture, L_s (1e-6, 1e-6)", 0.015, 0.029, 0.009, 2.244, 0.051, 2.246),
    "attentive": Mixture("attentive", 0.019, 0.033, 0.006, 1.797, 0.071, 2.055),
    "attentive-importance": Mixture("attentive, L_imp (0.2)", 0.013, 0.035, 0.005, 2.260, 0.055, 2.266),
    "attentive-similarity": Mixture("attentive, L_s (1e-6, 1e-2)", 0.013, 0.032, 0.006, 2.275, 0.039, 2.321),
    "distilled-importance": Mixture("distilled, L_imp (0.4)", 0.009, 0.030, 0.007, 2.301, 0.036, 2.320),
    "distilled-similarity": Mixture("distilled, L_s (1e-6, 1e-3)", 0.009, 0.028, 0.007, 2.191, 0.056, 2.319),
}
FASHION_MNIST = {
    "single": Mixture("one expert", 0.115, 0.132, 0.011),
    "moe": Mixture("mixture", 0.041, 0.104, 0.006, 2.034, 0.081, 2.048),
    "moe-importance": Mixture("mixture, L_imp (0.2)", 0.031, 0.103, 0.006, 2.301, 0.172, 2.321),
    "moe-similarity": Mixture("mixture, L_s (1e-7, ?)", 0.018, 0.095, 0.007, 2.198, 0.110, 2.225),
    "attentive": Mixture("attentive", 0.041, 0.098, 0.013, 2.071, 0.114, 2.249),
    "attentive-importance": Mixture("attentive, L_imp (0.8)", 0.014, 0.098, 0.006, 2.233, 0.101, 2.319),
    "attentive-similarity": Mixture("attentive, L_s (1e-6, ?)", 0.014, 0.096, 0.008, 2.296, 0.109, 2.321),
    "distilled-importance": Mixture("distilled, L_imp (1.0)", 0.004, 0.087, 0.007, 2.227, 0.101, 2.318),
    "distilled-similarity": Mixture("distilled, L_s (1e-6, ?)", 0.005, 0.089, 0.008, 2.304, 0.076, 2.321),
}


class Cluster(NamedTuple):
    table: Optional[str]  # the paper's own figure, with its spread over 10 runs; None: not known to us
    notebook: str         # what the authors' notebooks print
    accuracy: float       # of the notebook, to compare with
    spread: float
    entropy: Optional[str] = None


CLUSTERS = {
    "s1-single-linear": Cluster("68.71", "68.31", 68.31, 0),
    "s1-single-nonlinear": Cluster("79.48", "79.57", 79.57, 0),
    "s1-moe-linear": Cluster("92.99 ± 2.11", "93.00 ± 2.11", 93.00, 2.11, "1.300 ± 0.044"),
    "s1-moe-nonlinear": Cluster("99.46 ± 0.55", "99.46 ± 0.55", 99.46, 0.55, "0.098 ± 0.088"),
    "s2-single-linear": Cluster(None, "68.22", 68.22, 0),
    "s2-single-nonlinear": Cluster("72.29", "77.38", 77.38, 0),
    "s2-moe-linear": Cluster("88.48 ± 1.96", "89.49 ± 1.35", 89.49, 1.35, "1.262 ± 0.095"),
    "s2-moe-nonlinear": Cluster("98.09 ± 1.27", "98.10 ± 1.56", 98.10, 1.56, "0.183 ± 0.144"),
    "s3-single-linear": Cluster(None, "74.30", 74.30, 0),
    "s3-single-nonlinear": Cluster(None, "73.72", 73.72, 0),
    "s3-moe-linear": Cluster("95.93 ± 1.34", "95.93 ± 1.34", 95.93, 1.34, "1.160 ± 0.100"),
    "s3-moe-nonlinear": Cluster("99.99 ± 0.02", "99.99 ± 0.02", 99.99, 0.02, "0.008 ± 0.011"),
    "s4-single-linear": Cluster(None, "74.28", 74.28, 0),
    "s4-single-nonlinear": Cluster(None, "70.26", 70.26, 0),
    "s4-moe-linear": Cluster("93.30 ± 1.48", "93.30 ± 1.48", 93.30, 1.48, "1.160 ± 0.155"),
    "s4-moe-nonlinear": Cluster("98.92 ± 1.18", "98.92 ± 1.18", 98.92, 1.18, "0.089 ± 0.120"),
}
