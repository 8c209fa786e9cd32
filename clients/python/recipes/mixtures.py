"""The trainings of arXiv 2302.14703 on images of one channel; mnist.py and fashion_mnist.py fill in the networks.

    single                   one network of an expert's size
    moe                      experts and a plain gate, trained together
    moe-importance           the same with L_importance, which asks for even use
    moe-similarity           the same with L_s, which sends similar images to the same expert
    attentive, -importance, -similarity   with the attentive gate, for which all experts run
    distilled-importance, -similarity     a plain gate trained for an attentive model's frozen experts
    teacher-...              the teacher of a distilled variant, where its coefficients differ from the row's

Coefficients are those of the paper's published rows. All are trained densely; an exported plain gate selects --top-k.
"""

import copy
from collections import OrderedDict
from typing import NamedTuple, Optional, Tuple

import torch
from torch import nn

from moed import losses, reference
from moed.exporter import export
from moed.layers import AttentiveGate, Gate, MoE
from moed.loader import load
from moed.multitask import preprocess
from recipes import card, idx, runner, training
from recipes.batched_experts import batched


class Variant(NamedTuple):
    model: str                                       # single | moe | attentive | distilled
    importance: Optional[float] = None               # w_importance
    similarity: Optional[Tuple[float, float]] = None  # beta_same, beta_different
    teacher: Optional[str] = None                    # variant whose experts a distilled model keeps


TITLES = {"single": "one expert", "moe": "{} experts, plain gate", "attentive": "{} experts, attentive gate",
          "distilled": "{} experts of an attentive mixture, plain gate"}
ABOUT = {
    "single": "one small network",
    "moe": "{} small experts, of which a plain gate selects a few per image: a sparse model. Gate and experts were "
           "trained together",
    "attentive": "{} small experts. Its attentive gate compares the image with what every expert makes of it, so all "
                 "experts run for every image: a dense model",
    "distilled": "{} small experts, of which a plain gate selects a few per image: a sparse model. The experts are "
                 "those of an attentive teacher, unchanged; the gate was trained for them",
}


class MixtureJob(runner.Job):
    """Adam on batches in random order, with the regulariser of the variant and the settings of the recipe."""

    def __init__(self, recipe, model, variant, images, labels, epochs):
        optimizer = torch.optim.Adam((weight for weight in model.parameters() if weight.requires_grad), lr=recipe.rate,
                                     weight_decay=recipe.weight_decay)
        super().__init__(model, {"optimizer": optimizer}, epochs or recipe.epochs)
        self.recipe, self.optimizer, self.variant = recipe, optimizer, variant
        self.images, self.labels = images, labels
        self.forward = recipe.fast(model)

    def epoch(self):
        self.model.train()
        total, wrong = 0.0, 0
        for batch in torch.randperm(len(self.images)).split(self.recipe.batch_rows):
            images, labels = self.recipe.augmented(self.images[batch]), self.labels[batch]
            output = self.forward(images)
            loss = training.mixture_loss(output, labels) + self.regularizer(images)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
            wrong += (output.argmax(dim=1) != labels).sum().item()
        return total / len(self.images), wrong / len(self.images)

    def regularizer(self, images):
        """A distilled gate is trained on the task alone, as in the paper."""
        if self.variant.importance is not None:
            return self.variant.importance * losses.importance_loss(self.model.routing.probabilities)
        if self.variant.similarity is not None:
            distance = losses.pairwise_distance(images, scaled=False)  # as when the paper's coefficients were found
            return losses.sample_similarity_loss(self.model.routing.probabilities, distance, *self.variant.similarity)
        return 0.0


class MixtureRecipe(runner.Recipe):
    """A data set of the paper. A recipe gives the attributes below, `expert()` and `gate_layers(attentive)`."""

    top_k = 2
    table = {}           # variant name -> Variant
    labels = ()
    shape = (1, 28, 28)  # of an image
    preprocess = {}      # of the checkpoint's input
    title = about_images = about_data = advice = ""
    reading = reading_about = ""  # where attention takes keys and query, and what the authors do: see results.py
    experts, hidden, batch_rows, rate, weight_decay, epochs = 5, 32, 512, 1e-3, 0.0, 20

    def __init__(self):
        self.variants = tuple(self.table)
        self.sets = None

    def read(self, directory, variant):
        """{"train": (images, labels), "test": ...}, preprocessed; the same for all variants."""
        if self.sets is None:
            self.sets = {name: (preprocess(raw, self.preprocess), labels)
                         for name, (raw, labels) in self.read_raw(directory).items()}
        return self.sets

    def read_raw(self, directory):
        return read_images(directory, self.advice)

    def fast(self, model):
        """A faster form of the model, for training."""
        return batched(model)

    def augmented(self, images):
        return images

    def teacher(self, variant):
        return self.table[variant].teacher

    def build(self, kind, teacher=None):
        if kind == "single":
            return self.expert()
        experts = [self.expert() for _ in range(self.experts)]
        if kind == "attentive":
            return MoE(experts, AttentiveGate(self.gate_layers(True), self.hidden, key_layer="fc2"))
        layers = self.gate_layers(False)
        layers.add_module("out", nn.Linear(self.hidden, self.experts))
        model = MoE(experts, Gate(layers))
        return model if teacher is None else distil(model, teacher)

    def job(self, variant, data, teacher, epochs):
        settings = self.table[variant]
        model = self.build(settings.model, teacher)
        return MixtureJob(self, model, settings, *data["train"], epochs)

    def measure(self, job, data):
        model = job.model
        train = {"train_error": training.error_of(job.forward, model, *data["train"])}
        if job.variant.model == "single":
            return {**train, "test_error": training.error_of(job.forward, model, *data["test"])}
        figures = training.evaluate(model, *data["test"])
        result = {**train, "test_error": figures.pop("error"), **figures}
        return result if job.variant.model == "attentive" else {**result, **sparse_errors(model, *data["test"])}

    def export(self, variant, model, data, row, options, directory):
        model, kind = copy.deepcopy(model), self.table[variant].model
        if kind in ("moe", "distilled"):
            model.gate.top_k, model.gate.normalize = options.top_k, "sum"
        layers = model if kind == "single" else nn.Sequential(OrderedDict(moe=model))

        def write(measured):
            export(layers, torch.zeros(1, *self.shape), directory, input_name="image", preprocess=self.preprocess,
                   output_name="probabilities", labels=self.labels, dtype=options.dtype,
                   description=f"{self.title}: {TITLES[kind].format(self.experts)}", routing_reference=measured)
            return load(directory).layers

        stored, facts = write(None), card.origin(self.about_data, options.command, row, model, options.dtype)
        facts.update(card.accuracy(training.error_of(stored, stored, *data["test"]),
                                   training.error_of(model, model, *data["test"]), row["train_error"], options.dtype))
        if kind != "single":
            # Written twice: the routing reference is that of the stored weights, which exist only after the first time.
            figures = training.evaluate(stored.moe, *data["test"])
            write(reference.summed(stored, data["test"][0].split(training.EVALUATION_ROWS), {"moe": self.experts}))
            facts.update(card.routing(figures, self.experts, model.gate.top_k or self.experts))
        card.write(directory, f"Classifies {self.about_images} with {ABOUT[kind].format(self.experts)}.", facts,
                   "Accuracy and routing were measured on the weights as stored, on all test images. Training accuracy "
                   "is that of all experts together.")


def distil(model, teacher):
    """Gives the plain model the teacher's experts, frozen, and of the teacher's gate all but the output layer."""
    model.experts = copy.deepcopy(teacher.experts).requires_grad_(False)
    model.gate.layers.load_state_dict(teacher.gate.layers.state_dict(), strict=False)
    return model


def sparse_errors(model, images, labels):
    """Test errors of the same model when its gate selects, with the selected weights divided by their sum."""
    sparse, result = copy.deepcopy(model), {}
    sparse.gate.normalize = "sum"
    for sparse.gate.top_k in (1, 2):
        result[f"test_error_top{sparse.gate.top_k}"] = training.error_of(sparse, sparse, images, labels)
    return result


def read_images(directory, advice):
    """{"train": (images, labels), "test": ...}: raw pixels 0..255 as (rows, 1, 28, 28) float32."""
    sets = {}
    for name, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = idx.read_set(directory, prefix, advice)
        sets[name] = (torch.from_numpy(images.astype("float32")).unsqueeze(1),
                      torch.from_numpy(labels.astype("int64")))
    return sets


def narrow_front():
    """conv 3x3 -> ReLU -> 2x2 pooling: 28x28 pixels become 169 numbers."""
    return [("conv", nn.Conv2d(1, 1, 3)), ("relu", nn.ReLU()), ("pool", nn.MaxPool2d(2)), ("flatten", nn.Flatten())]


def classifier(fc1, hidden, classes):
    """An expert: 169 -> fc1 -> hidden -> class probabilities. Attention reads fc2 before its ReLU."""
    return nn.Sequential(OrderedDict(narrow_front() + [
        ("fc1", nn.Linear(169, fc1)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(fc1, hidden)), ("relu2", nn.ReLU()),
        ("out", nn.Linear(hidden, classes)), ("softmax", nn.Softmax(dim=-1))]))
