"""One network against a mixture of four on images, as Chen et al. 2022 (arXiv 2208.02813) train them.

    single   one small convolutional network, by momentum SGD
    moe      four of them, by normalised gradient descent; the router, one convolution of the image, by plain SGD with
             routing noise and a balance loss. The best softmax weight multiplies the answer of its expert alone

The paper's CNN is not in the authors' repository; this one is ours: three 3x3 convolutions of 16, 32 and 64 filters,
each with batch normalisation, ReLU and pooling, and a linear layer. Hence only the difference between the two, and not
their level, can be held against the paper's figures.
"""

from collections import OrderedDict

import torch
from torch import nn

from moed import losses
from moed.blocks import Sum
from moed.export import export
from moed.layers import Gate, MoE
from moed.load import load
from moed.multitask import preprocess
from moed.noise import UniformNoise
from moed.recipes import card, runner, training
from moed.recipes.normalized import NormalizedGD

EXPERTS = 4
FILTERS = (3, 16, 32, 64)
BATCH_ROWS, MOMENTUM, DECAY = 128, 0.9, 5e-4
EXPERT_RATE, ROUTER_RATE, BALANCE = 1e-2, 1e-4, 0.01
COSINE_EPOCHS = 200
ABOUT = {"single": "one small convolutional network",
         "moe": "four small convolutional networks, of which a router picks one per image"}


def expert(classes):
    layers = []
    for number, (inputs, outputs) in enumerate(zip(FILTERS, FILTERS[1:]), 1):
        layers += [(f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
                   (f"norm{number}", nn.BatchNorm2d(outputs)), (f"relu{number}", nn.ReLU()),
                   (f"pool{number}", nn.MaxPool2d(2))]
    return nn.Sequential(OrderedDict(layers + [("flatten", nn.Flatten()), ("out", nn.Linear(64 * 4 * 4, classes))]))


def router():
    """Filters of 4x4 pixels, zero at first, summed over the image."""
    filters = nn.Conv2d(3, EXPERTS, 4, stride=4)
    nn.init.zeros_(filters.weight)
    nn.init.zeros_(filters.bias)
    layers = OrderedDict(filters=filters, sum_columns=Sum(2), sum_rows=Sum(1))
    return Gate(nn.Sequential(layers), score="softmax", top_k=1, normalize="none", noise=UniformNoise())


def build(variant, classes):
    core = {"expert": expert(classes)} if variant == "single" else \
        {"moe": MoE([expert(classes) for _ in range(EXPERTS)], router())}
    return nn.Sequential(OrderedDict(core, softmax=nn.Softmax(dim=-1)))


class ImageJob(runner.Job):
    """The mixture's loss takes the softmax's output for logits, as the authors' code does."""

    def __init__(self, variant, classes, images, labels, epochs):
        model = build(variant, classes)
        if variant == "single":
            self.optimizers = [torch.optim.SGD(model.parameters(), EXPERT_RATE, MOMENTUM, weight_decay=DECAY)]
        else:
            groups = [{"params": list(each.parameters())} for each in model.moe.experts]
            self.optimizers = [NormalizedGD(groups, EXPERT_RATE, MOMENTUM, DECAY),
                               torch.optim.SGD(model.moe.gate.parameters(), ROUTER_RATE, MOMENTUM, weight_decay=DECAY)]
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizers[0], COSINE_EPOCHS)
        parts = {f"optimizer{index}": optimizer for index, optimizer in enumerate(self.optimizers)}
        super().__init__(model, {**parts, "schedule": self.schedule}, epochs)
        self.images, self.labels = images, labels

    def loss(self, images, labels):
        """(loss, output)"""
        if "moe" not in self.model._modules:
            output = self.model.expert(images)
            return nn.functional.cross_entropy(output, labels), output
        output, routing = self.model(images), self.model.moe.routing
        balance = losses.switch_loss(routing.probabilities, routing.experts)
        return nn.functional.cross_entropy(output, labels) + BALANCE * balance, output

    def epoch(self):
        self.model.train()
        total, wrong = 0.0, 0
        for batch in torch.randperm(len(self.images)).split(BATCH_ROWS):
            loss, output = self.loss(self.images[batch], self.labels[batch])
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            total += loss.item() * len(batch)
            wrong += (output.argmax(dim=1) != self.labels[batch]).sum().item()
        self.schedule.step()
        return total / len(self.images), wrong / len(self.images)


class ImageRecipe(runner.Recipe):
    """A recipe gives the attributes below and `read_raw(directory)`: {"train": (raw images, labels), "test": ...}."""

    variants = ("single", "moe")
    seeds = (0,)
    labels, preprocess = (), {}
    epochs = 30
    title = about_images = about_data = ""

    def __init__(self):
        self.sets = None

    def read(self, directory, variant):
        if self.sets is None:
            self.sets = {name: (preprocess(images, self.preprocess), labels)
                         for name, (images, labels) in self.read_raw(directory).items()}
        return self.sets

    def job(self, variant, data, teacher, epochs):
        return ImageJob(variant, len(self.labels), *data["train"], epochs or self.epochs)

    def measure(self, job, data):
        model = job.model
        result = {"train_error": training.error_of(model, model, *data["train"]),
                  "test_error": training.error_of(model, model, *data["test"])}
        return {**result, "share": share(model, data["test"][0])} if "moe" in model._modules else result

    def export(self, variant, model, data, row, options, directory):
        def write(reference):
            export(model, directory, (3, 32, 32), input_name="image", preprocess=self.preprocess,
                   output_name="probabilities", labels=self.labels, dtype=options.dtype, routing_reference=reference,
                   description=f"{self.title}: {ABOUT[variant]}")
            return load(directory).layers

        stored, facts = write(None), card.origin(self.about_data, options.command, row, model, options.dtype)
        facts.update(card.accuracy(training.error_of(stored, stored, *data["test"]), row["test_error"],
                                   row["train_error"], options.dtype))
        if variant == "moe":
            shares = share(stored, data["test"][0])
            write({"moe": {"share": shares, "rows": len(data["test"][0])}})
            facts.update({"Experts": f"{EXPERTS}, 1 per row", "Rows served, by expert": card.percents(shares)})
        card.write(directory, f"{self.about_images} with {ABOUT[variant]}.", facts,
                   "Accuracy and routing were measured on the weights as stored, on all test images.")


def share(model, images):
    """Share of the images that each expert serves."""
    model.eval()
    with torch.no_grad():
        chosen = torch.cat([model.moe.gate.layers(rows).argmax(dim=1) for rows in images.split(2000)])
    return (torch.bincount(chosen, minlength=EXPERTS).double() / len(images)).tolist()
