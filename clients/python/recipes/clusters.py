"""The synthetic data of Chen et al. 2022 (arXiv 2208.02813): one expert fails, a mixture finds the clusters.

    python3 -m recipes.clusters                          # all 16 models, 3 seeds each
    python3 -m recipes.clusters --variant s1-moe-nonlinear --seeds 0 --out DIR

A row is four shuffled patches of 50 numbers: the signal of its class, the centre of its cluster, the signal of another
cluster with a random sign, and noise. No sum of one function over the patches, trained on all clusters, gets more than
87.5 % of setting 3 right (Theorem 4.1); a mixture whose router finds the four clusters gets nearly all.

Variants are s1 to s4, the paper's settings, each as single-linear, single-nonlinear (one expert of 80 filters),
moe-linear and moe-nonlinear (eight of 16). A nonlinear expert cubes its filters' answers.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from moed import reference
from moed import routing_metrics as metrics
from moed.exporter import export
from moed.layers import Gate, MoE
from moed.loader import load
from moed.modules import Cube, Reshape, Sum
from moed.noise import UniformNoise
from recipes import card, runner
from recipes.normalized import NormalizedGD

CLUSTERS, PATCHES, SIZE = 4, 4, 50
ROWS = 16000
EXPERTS = 8
EXPERT_FILTERS, SINGLE_FILTERS = 16, 80
SMALL = 1e-3  # factor on the experts' initial weights: the analysis needs them to start alike
NOISE_TESTS = 5


class Setting(NamedTuple):
    gamma_high: float  # strength of the other cluster's signal: U[0.5, gamma_high]
    sigma: float       # noise patch: N(0, sigma^2 / SIZE)
    seed: int          # of the data


SETTINGS = {"s1": Setting(3, 1, 12), "s2": Setting(3, 2, 11), "s3": Setting(2, 1, 11), "s4": Setting(2, 2, 11)}
MODELS = ("single-linear", "single-nonlinear", "moe-linear", "moe-nonlinear")


TITLES = {"single-linear": "one linear expert", "single-nonlinear": "one cubic expert",
          "moe-linear": "eight linear experts", "moe-nonlinear": "eight cubic experts"}
ABOUT = {
    "moe": "Tells the sign of a signal that is one of four shuffled patches and differs from cluster to cluster. The "
           "router finds the clusters although nothing names them; one expert alone cannot solve the task.",
    "single": "Tells the sign of a signal that is one of four shuffled patches and differs by cluster: one "
              "expert, which cannot solve the task.",
}
ABOUT_ROW = (f"A row is {PATCHES} patches of {SIZE} numbers, as `recipes.clusters.data_of` makes them. Accuracy "
             "and routing were measured on the weights as stored, on all test rows, without routing noise.")


class Rows(NamedTuple):
    x: torch.Tensor         # (rows, PATCHES * SIZE)
    labels: torch.Tensor    # 0 or 1
    clusters: torch.Tensor  # 0 .. CLUSTERS - 1


def orthonormal(rng):
    """(2 * CLUSTERS, SIZE): the clusters' signals, then their centres, all orthogonal and of length 1."""
    q, _ = np.linalg.qr(rng.standard_normal((SIZE, 2 * CLUSTERS)))
    return q.T


def draw(rng, vectors, setting, rows):
    """Rows of the distribution D of the paper, times 10."""
    signals, centres = vectors[:CLUSTERS], vectors[CLUSTERS:]
    cluster = rng.integers(CLUSTERS, size=rows)
    other = (cluster + rng.integers(1, CLUSTERS, size=rows)) % CLUSTERS
    y, eps = rng.choice((-1, 1), size=(2, rows))
    alpha, beta = rng.uniform(0.5, 2, rows), rng.uniform(1, 2, rows)
    gamma = rng.uniform(0.5, setting.gamma_high, rows)
    patches = np.stack([(y * alpha)[:, None] * signals[cluster], beta[:, None] * centres[cluster],
                        (eps * gamma)[:, None] * signals[other],
                        rng.normal(0, setting.sigma / np.sqrt(SIZE), (rows, SIZE))], axis=1)
    order = np.argsort(rng.random((rows, PATCHES)), axis=1)
    x = 10 * np.take_along_axis(patches, order[:, :, None], axis=1).reshape(rows, PATCHES * SIZE)
    return Rows(torch.from_numpy(x.astype("float32")), torch.from_numpy((y + 1) // 2), torch.from_numpy(cluster))


def data_of(name, rows=ROWS):
    """{"train": Rows, "test": Rows} of a setting; the same every time."""
    setting = SETTINGS[name]
    rng = np.random.default_rng(setting.seed)
    vectors = orthonormal(rng)
    return {part: draw(rng, vectors, setting, rows) for part in ("train", "test")}


def expert(filters, linear):
    """Every filter sees every patch; a class's logit is the sum of its half of the filters over the patches."""
    layers = [("patches", Reshape(PATCHES, SIZE)), ("filters", nn.Linear(SIZE, filters))]
    layers += [] if linear else [("cube", Cube())]
    layers += [("sum_patches", Sum(0)), ("classes", Reshape(2, filters // 2)), ("sum_filters", Sum(1))]
    return nn.Sequential(OrderedDict(layers))


def router():
    """Linear filters summed over the patches, zero at first; the weight of an expert is its raw logit."""
    filters = nn.Linear(SIZE, EXPERTS, bias=False)
    nn.init.zeros_(filters.weight)
    layers = OrderedDict(patches=Reshape(PATCHES, SIZE), filters=filters, sum_patches=Sum(0))
    return Gate(nn.Sequential(layers), score="none", top_k=1, normalize="none", noise=UniformNoise())


def small_expert(linear):
    result = expert(EXPERT_FILTERS, linear)
    with torch.no_grad():
        for weight in result.parameters():
            weight.mul_(SMALL)
    return result


def build(kind):
    """The model with its softmax, as a checkpoint holds it."""
    linear = kind.endswith("-linear")
    if kind.startswith("single"):
        return nn.Sequential(OrderedDict(expert=expert(SINGLE_FILTERS, linear), softmax=nn.Softmax(dim=-1)))
    moe = MoE([small_expert(linear) for _ in range(EXPERTS)], router())
    return nn.Sequential(OrderedDict(moe=moe, softmax=nn.Softmax(dim=-1)))


class SingleJob(runner.Job):
    """One expert, trained as the authors do: Adam, all rows at once, cross entropy of the logits."""

    def __init__(self, kind, rows, epochs):
        model = build(kind)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003 if kind.endswith("-linear") else 0.01,
                                     weight_decay=5e-4)
        super().__init__(model, {"optimizer": optimizer}, epochs or 801)
        self.rows, self.optimizer = rows, optimizer

    def output(self):
        return self.model.expert(self.rows.x)

    def epoch(self):
        output = self.output()
        loss = nn.functional.cross_entropy(output, self.rows.labels)
        if not self.stops([before[0] for before in self.history], loss.item()):
            self.step(loss)
        return loss.item(), error_of(output, self.rows.labels)

    def step(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def stops(self, before, loss):
        return len(before) > 500 and loss > min(before) + 0.02

    def finished(self):
        losses = [loss for loss, _ in self.history]
        return super().finished() or (len(losses) > 1 and self.stops(losses[:-1], losses[-1]))


class MixtureJob(SingleJob):
    """Eight experts by normalised gradient descent, the router by its own, with routing noise.

    The loss takes the softmax's output for logits, as the authors' code does, so it cannot fall below ln(1 + 1/e) =
    0.3133. Training stops when the loss rises although it is nearly there, or rises much.
    """

    def __init__(self, kind, rows, epochs):
        model = build(kind)
        groups = [{"params": list(each.parameters())} for each in model.moe.experts]
        self.experts = NormalizedGD(groups, lr=0.001)
        self.router = torch.optim.SGD(model.moe.gate.parameters(), lr=0.1)
        runner.Job.__init__(self, model, {"experts": self.experts, "router": self.router}, epochs or 501)
        self.rows = rows

    def output(self):
        return self.model.train()(self.rows.x)

    def step(self, loss):
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.experts.step()
        self.router.step()

    def stops(self, before, loss):
        return bool(before) and loss > min(before) and (loss > min(before) + 0.02 or loss <= 0.314)


def error_of(output, labels):
    return (output.argmax(dim=1) != labels).sum().item() / len(labels)


def error_on(model, rows):
    with torch.no_grad():
        return error_of(model(rows.x), rows.labels)


def dispatch_table(model, rows):
    """(clusters, experts): how many rows of a cluster went where."""
    with torch.no_grad():
        model(rows.x)
    pairs = rows.clusters * EXPERTS + model.moe.routing.experts[:, 0]
    return torch.bincount(pairs, minlength=CLUSTERS * EXPERTS).reshape(CLUSTERS, EXPERTS)


def routing_figures(model, data):
    """Measured with the noise of training, as in the paper, and without, as it is served."""
    def dispatch():
        table = dispatch_table(model, data["train"])
        return table.tolist(), metrics.dispatch_entropy_nats(table)

    model.train()
    noisy_table, noisy_entropy = dispatch()
    noisy = {"noisy_train_error": error_on(model, data["train"]), "noisy_dispatch_entropy_nats": noisy_entropy,
             "noisy_test_error": sum(error_on(model, data["test"]) for _ in range(NOISE_TESTS)) / NOISE_TESTS}
    model.eval()
    table, entropy = dispatch()
    return {**noisy, "dispatch_entropy_nats": entropy, "dispatch": table, "noisy_dispatch": noisy_table}


class Clusters(runner.Recipe):
    name, about = "clusters", __doc__
    variants = tuple(f"{setting}-{kind}" for setting in SETTINGS for kind in MODELS)

    def read(self, directory, variant):
        return data_of(variant[:2])

    def job(self, variant, data, teacher, epochs):
        kind = variant[3:]
        return (SingleJob if kind.startswith("single") else MixtureJob)(kind, data["train"], epochs)

    def measure(self, job, data):
        model = job.model.eval()
        figures = {"train_error": error_on(model, data["train"]), "test_error": error_on(model, data["test"]),
                   "final_loss": job.history[-1][0]}
        return {**figures, **(routing_figures(model, data) if isinstance(job, MixtureJob) else {})}

    def export(self, variant, model, data, row, options, directory):
        def write(measured):
            export(model, torch.zeros(1, PATCHES * SIZE), directory, input_name="patches", output_name="probabilities",
                   labels=("-1", "+1"), dtype=options.dtype, routing_reference=measured,
                   description=f"Clusters, setting {variant[1]}: {TITLES[variant[3:]]}")
            return load(directory).layers

        stored = write(None)
        facts = card.origin(f"synthetic, setting {variant[1]} of arXiv 2208.02813: {ROWS:,} rows to train, {ROWS:,} to "
                            "test", options.command, row, model, options.dtype)
        facts.update(card.accuracy(error_on(stored, data["test"]), error_on(model.eval(), data["test"]),
                                   row["train_error"], options.dtype))
        if "moe" in variant:
            table = dispatch_table(stored, data["test"])
            share = (table.sum(dim=0).double() / ROWS).tolist()
            write(reference.summed(stored, data["test"].x.split(2000), {"moe": EXPERTS}))
            facts.update({"Experts": f"{EXPERTS}, 1 per row", "Rows served, by expert": card.percents(share),
                          "Dispatch entropy": f"{metrics.dispatch_entropy_nats(table):.3f} nats (0: every expert sees "
                                              f"one cluster; at most ln {CLUSTERS} = {np.log(CLUSTERS):.3f})"})
        card.write(directory, ABOUT[variant[3:].split("-")[0]], facts, ABOUT_ROW)


if __name__ == "__main__":
    runner.main(Clusters())
