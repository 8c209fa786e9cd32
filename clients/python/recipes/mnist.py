from collections import OrderedDict

from torch import nn

from recipes import mixtures, runner
from recipes.mixtures import Variant

__doc__ = """The MNIST mixtures of arXiv 2302.14703: five experts of 1,400 weights and a gate.

    python3 -m recipes.mnist --data DIR
    python3 -m recipes.mnist --data DIR --variant distilled-similarity --seeds 0 --out CHECKPOINT

DIR holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two t10k files.
""" + mixtures.__doc__.split("\n", 1)[1]


class Mnist(mixtures.MixtureRecipe):
    name, about, data = "mnist", __doc__, "data/mnist"
    title, about_images = "MNIST", "28x28 grey images of handwritten digits"
    labels = tuple("0123456789")
    preprocess = {"scale": 1 / 255, "mean": [0.1307], "std": [0.3081]}
    about_data = "MNIST (LeCun, Cortes, Burges): 60,000 images to train, 10,000 to test"
    advice = "Get the four files of MNIST in IDX format, gzip-compressed, and name their directory with --data."
    reading = "keys before, query before"
    reading_about = ("Here both come\nbefore it, as in the authors' branch `aistats2023`; their later MNIST script "
                     "takes the keys after it.")
    table = {
        "single": Variant("single"),
        "moe": Variant("moe"),
        "moe-importance": Variant("moe", importance=0.2),
        "moe-similarity": Variant("moe", similarity=(1e-6, 1e-6)),
        "attentive": Variant("attentive"),
        "attentive-importance": Variant("attentive", importance=0.2),
        "attentive-similarity": Variant("attentive", similarity=(1e-6, 1e-2)),
        "teacher-importance": Variant("attentive", importance=0.4),
        "distilled-importance": Variant("distilled", teacher="teacher-importance"),
        "teacher-similarity": Variant("attentive", similarity=(1e-6, 1e-3)),
        "distilled-similarity": Variant("distilled", teacher="teacher-similarity"),
    }

    def expert(self):
        return mixtures.classifier(5, self.hidden, len(self.labels))

    def gate_layers(self, attentive):
        """The gate without its output layer; the attentive one compares fc2 before its ReLU."""
        layers = mixtures.narrow_front() + [("fc1", nn.Linear(169, 128)), ("relu1", nn.ReLU()),
                                            ("fc2", nn.Linear(128, self.hidden))]
        return nn.Sequential(OrderedDict(layers if attentive else layers + [("relu2", nn.ReLU())]))


if __name__ == "__main__":
    runner.main(Mnist())
