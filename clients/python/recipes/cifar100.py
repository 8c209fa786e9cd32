from collections import OrderedDict

from torch import nn

from recipes import cifar, mixtures, runner
from recipes.mixtures import Variant

__doc__ = """The CIFAR-100 mixtures of arXiv 2302.14703: a gate and twenty of the paper's small experts; days on a core.

    python3 -m recipes.cifar100 --data cifar-100-python

""" + mixtures.__doc__.split("\n", 2)[2]


def front(filters):
    """Four 3x3 convolutions, each followed by ReLU and pooling: 32x32 pixels become 2x2. `filters` are five numbers."""
    layers = []
    for number, (inputs, outputs) in enumerate(zip(filters, filters[1:]), 1):
        normed = number % 2 == 0
        layers.append((f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=not normed)))
        layers += [(f"norm{number}", nn.BatchNorm2d(outputs))] if normed else []
        layers += [(f"relu_conv{number}", nn.ReLU()), (f"pool{number}", nn.MaxPool2d(2))]
    return layers + [("flatten", nn.Flatten())]


class Cifar100(mixtures.MixtureRecipe):
    name, about, data = "cifar100", __doc__, "data/cifar-100-python"
    title, about_images = "CIFAR-100", "32x32 colour images of a hundred kinds of things"
    labels = tuple(f"class {number}" for number in range(100))
    shape, preprocess = (3, 32, 32), cifar.PREPROCESS_100
    about_data = "CIFAR-100 (Krizhevsky): 50,000 images to train, 10,000 to test"
    experts, hidden, batch_rows, weight_decay, epochs = 20, 64, 256, 1e-3, 40
    seeds = (0,)
    table = {
        "single": Variant("single"),
        "moe": Variant("moe"),
        "moe-importance": Variant("moe", importance=0.8),
        "moe-similarity": Variant("moe", similarity=(1e-3, 1e-7)),
        "attentive": Variant("attentive"),
        "attentive-importance": Variant("attentive", importance=0.2),
        "attentive-similarity": Variant("attentive", similarity=(1e-3, 1e-5)),
    }

    def read_raw(self, directory):
        return {name: (images.float(), labels) for name, (images, labels) in cifar.read_cifar100(directory).items()}

    def fast(self, model):
        return model

    def augmented(self, images):
        return cifar.moved(images, "reflect")

    def expert(self):
        return nn.Sequential(OrderedDict(front((3, 8, 16, 32, 64)) + [
            ("fc1", nn.Linear(256, 128)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(128, self.hidden)),
            ("relu2", nn.ReLU()), ("out", nn.Linear(self.hidden, 100)), ("softmax", nn.Softmax(dim=-1))]))

    def gate_layers(self, attentive):
        return nn.Sequential(OrderedDict(front((3, 64, 128, 256, 512)) + [
            ("fc1", nn.Linear(2048, 512)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(512, self.hidden)),
            ("relu2", nn.ReLU())]))


if __name__ == "__main__":
    runner.main(Cifar100())
