from collections import OrderedDict

from torch import nn

from recipes import mixtures, runner
from recipes.mixtures import Variant

__doc__ = """The Fashion-MNIST mixtures of arXiv 2302.14703: five experts of 13,300 weights and a gate.

    python3 -m recipes.fashion_mnist
    python3 -m recipes.fashion_mnist --variant distilled-similarity --seeds 2 --out CHECKPOINT

The data set is Debian's package dataset-fashion-mnist.
""" + mixtures.__doc__.split("\n", 1)[1]


class FashionMnist(mixtures.MixtureRecipe):
    name, about, data = "fashion_mnist", __doc__, "/usr/share/datasets/fashion-mnist"
    title, about_images = "Fashion-MNIST", "28x28 grey images of clothes"
    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    preprocess = {"scale": 1 / 255, "mean": [0.2859], "std": [0.3530]}
    about_data = ("Fashion-MNIST (Zalando Research, MIT licence; Debian package `dataset-fashion-mnist`): 60,000 "
                  "images to train, 10,000 to test")
    advice = "Install it with `apt-get install dataset-fashion-mnist`, or name its directory with --data."
    reading = "keys before, query after"
    reading_about = "The authors' notebooks do the\nsame."
    # Published names of the L_s runs are cut off after beta_same. What the authors' notebook printed identifies that of
    # the attentive ones; for moe-similarity beta_different is taken to be the same.
    table = {
        "single": Variant("single"),
        "moe": Variant("moe"),
        "moe-importance": Variant("moe", importance=0.2),
        "moe-similarity": Variant("moe", similarity=(1e-7, 1e-7)),
        "attentive": Variant("attentive"),
        "attentive-importance": Variant("attentive", importance=0.8),
        "attentive-similarity": Variant("attentive", similarity=(1e-6, 1e-6)),
        "teacher-importance": Variant("attentive", importance=1.0),
        "distilled-importance": Variant("distilled", teacher="teacher-importance"),
        "distilled-similarity": Variant("distilled", teacher="attentive-similarity"),
    }

    def expert(self):
        return mixtures.classifier(64, self.hidden, len(self.labels))

    def gate_layers(self, attentive):
        """The gate without its output layer: eight filters, 1352 -> 512 -> 32."""
        return nn.Sequential(OrderedDict(
            conv=nn.Conv2d(1, 8, 3), norm=nn.BatchNorm2d(8), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
            fc1=nn.Linear(1352, 512), relu1=nn.ReLU(), fc2=nn.Linear(512, self.hidden), relu2=nn.ReLU()))


if __name__ == "__main__":
    runner.main(FashionMnist())
