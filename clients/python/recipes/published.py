"""The numbers that the papers report, for comparison with ours.

Paper 1: arXiv 2302.14703, from the stored outputs of the authors' notebooks (yamsgithub/modular_deep_learning). Each
row is the run with the least training error among all runs and coefficients of its kind; `spread` is the standard
deviation of the test error over all those runs. `runs` are all runs with the row's coefficients: those of MNIST from
results/mnist_results.csv, those of Fashion-MNIST from what the notebooks printed, errors to two decimals. I, H_s and
H_u are in bits.
Paper 2: arXiv 2208.02813, its table and the outputs of the authors' notebooks (uclaml/MoE). Accuracies in per cent;
dispatch entropy in nats.
"""

from typing import NamedTuple, Optional


class Runs(NamedTuple):
    """The authors' runs of one kind with one set of coefficients: (mean, standard deviation) of each figure."""

    count: int
    train_error: tuple
    test_error: tuple
    mutual_information_bits: Optional[tuple] = None
    gate_entropy_bits: Optional[tuple] = None
    usage_entropy_bits: Optional[tuple] = None


class Mixture(NamedTuple):
    title: str
    train_error: float
    test_error: float
    spread: float
    mutual_information_bits: Optional[float] = None
    gate_entropy_bits: Optional[float] = None
    usage_entropy_bits: Optional[float] = None
    runs: Optional[Runs] = None


MNIST = {
    "single": Mixture("one expert", 0.097, 0.096, 0.071, runs=Runs(10, (0.136, 0.072), (0.134, 0.071))),
    "moe": Mixture("mixture", 0.021, 0.038, 0.009, 2.022, 0.092, 2.172,
            Runs(10, (0.034, 0.013), (0.044, 0.009), (1.606, 0.395), (0.136, 0.100), (1.838, 0.241))),
    "moe-importance": Mixture("mixture, L_imp (0.2)", 0.015, 0.032, 0.008, 2.262, 0.061, 2.320,
            Runs(10, (0.025, 0.010), (0.038, 0.006), (1.970, 0.225), (0.142, 0.096), (2.270, 0.053))),
    "moe-similarity": Mixture("mixture, L_s (1e-6, 1e-6)", 0.015, 0.029, 0.009, 2.244, 0.051, 2.246,
            Runs(10, (0.024, 0.009), (0.037, 0.008), (1.993, 0.305), (0.134, 0.108), (2.286, 0.031))),
    "attentive": Mixture("attentive", 0.019, 0.033, 0.006, 1.797, 0.071, 2.055,
            Runs(11, (0.032, 0.010), (0.043, 0.006), (1.850, 0.223), (0.060, 0.027), (1.964, 0.177))),
    "attentive-importance": Mixture("attentive, L_imp (0.2)", 0.013, 0.035, 0.005, 2.260, 0.055, 2.266,
            Runs(10, (0.022, 0.007), (0.037, 0.003), (2.182, 0.056), (0.061, 0.019), (2.235, 0.041))),
    "attentive-similarity": Mixture("attentive, L_s (1e-6, 1e-2)", 0.013, 0.032, 0.006, 2.275, 0.039, 2.321,
            Runs(10, (0.023, 0.009), (0.038, 0.005), (2.219, 0.039), (0.064, 0.024), (2.280, 0.029))),
    "distilled-importance": Mixture("distilled, L_imp (0.4)", 0.009, 0.030, 0.007, 2.301, 0.036, 2.320,
            Runs(10, (0.019, 0.008), (0.038, 0.008), (2.208, 0.062), (0.063, 0.034), (2.284, 0.029))),
    "distilled-similarity": Mixture("distilled, L_s (1e-6, 1e-3)", 0.009, 0.028, 0.007, 2.191, 0.056, 2.319,
            Runs(10, (0.015, 0.004), (0.034, 0.006), (2.167, 0.109), (0.058, 0.025), (2.275, 0.049))),
}
FASHION_MNIST = {
    "single": Mixture("one expert", 0.115, 0.132, 0.011, runs=Runs(10, (0.132, 0.008), (0.148, 0.012))),
    "moe": Mixture("mixture", 0.041, 0.104, 0.006, 2.034, 0.081, 2.048),
    "moe-importance": Mixture("mixture, L_imp (0.2)", 0.031, 0.103, 0.006, 2.301, 0.172, 2.321,
            Runs(10, (0.046, 0.010), (0.104, 0.005))),
    "moe-similarity": Mixture("mixture, L_s (1e-7, ?)", 0.018, 0.095, 0.007, 2.198, 0.110, 2.225),
    "attentive": Mixture("attentive", 0.041, 0.098, 0.013, 2.071, 0.114, 2.249,
            Runs(10, (0.067, 0.023), (0.114, 0.013))),
    "attentive-importance": Mixture("attentive, L_imp (0.8)", 0.014, 0.098, 0.006, 2.233, 0.101, 2.319,
            Runs(10, (0.043, 0.018), (0.105, 0.005))),
    "attentive-similarity": Mixture("attentive, L_s (1e-6, 1e-6)", 0.014, 0.096, 0.008, 2.296, 0.109, 2.321,
            Runs(10, (0.045, 0.017), (0.105, 0.005))),
    "distilled-importance": Mixture("distilled, L_imp (1.0)", 0.004, 0.087, 0.007, 2.227, 0.101, 2.318,
            Runs(10, (0.036, 0.016), (0.108, 0.009))),
    "distilled-similarity": Mixture("distilled, L_s (1e-6, 1e-6)", 0.005, 0.089, 0.008, 2.304, 0.076, 2.321,
            Runs(10, (0.037, 0.015), (0.102, 0.006))),
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

# Test accuracy, single and mixture of four: means of five runs of their best epochs, by the network.
CIFAR = {
    "cifar10": {"cnn": ("80.68 ± 0.45", "80.31 ± 0.62"), "mobilenetv2": ("92.45 ± 0.25", "92.23 ± 0.72"),
                "resnet18": ("95.51 ± 0.31", "95.32 ± 0.68")},
    "cifar10_rotate": {"cnn": ("76.78 ± 1.79", "79.60 ± 1.25"), "mobilenetv2": ("85.76 ± 2.91", "89.85 ± 2.54"),
                       "resnet18": ("88.23 ± 0.96", "92.60 ± 2.01")},
}
