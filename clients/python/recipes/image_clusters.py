"""One network against a mixture of four on images, as Chen et al. 2022 (arXiv 2208.02813) train them.

    single-NET-sgd   one network, by momentum SGD on the cross entropy of its logits: the authors' single model
    single-NET-ngd   the same network trained as their mixture is: normalised gradient descent, and the cross entropy
                     of the softmax's output taken for logits
    moe-NET-ngd      four networks and a router, one convolution of the image, by plain SGD with routing noise and a
                     balance loss: the authors' mixture. The best softmax weight multiplies its expert's answer
    moe-NET-sgd      the same mixture trained as their single model is

NET is cnn, mobilenetv2 or resnet18. In training an expert gets the whole batch with the other experts' images set to
zero, as in the authors' code, so its batch normalisation sees them as well. Two changes of moe-NET-ngd:

    moe-NET-ngd-rows   an expert's batch is its own images and nothing else, as moed.layers.MoE has it
    moe-NET-ngd-noise  the router never learns: in training noise alone spreads the images

The test images are measured after every epoch. `test_error` is of the last one; the paper takes the best.
"""

import contextlib
import itertools
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn

from moed import reference
from moed import routing_metrics as metrics
from moed.exporter import export
from moed.layers import MoE
from moed.loader import load
from moed.multitask import preprocess
from recipes import card, dispatch, runner, training
from recipes.backbones import BACKBONES, set_mixed
from recipes.dispatch import EXPERTS
from recipes.normalized import NormalizedGD

BATCH_ROWS, MOMENTUM, DECAY = 128, 0.9, 5e-4
EXPERT_RATE, ROUTER_RATE, BALANCE = 1e-2, 1e-4, 0.01
TEST_ROWS = 1000
EAGER_STEPS = 3  # before a GPU's step is recorded: they choose algorithms and make the momentum buffers
ABOUT = {"single": "one convolutional network",
         "moe": "four convolutional networks, of which a router picks one per image"}


class Plan(NamedTuple):
    """What the name of a variant says."""

    model: str     # single | moe
    backbone: str
    method: str    # sgd | ngd
    change: str    # "" | rows | noise


MAIN = [Plan(model, backbone, method, "") for backbone, method, model in
        itertools.product(BACKBONES, ("sgd", "ngd"), ("single", "moe"))]
CHANGED = [Plan("moe", *rest) for rest in itertools.product(BACKBONES, ("ngd",), ("rows", "noise"))]
PLANS = {"-".join(plan).rstrip("-"): plan for plan in MAIN + CHANGED}


def as_it_is(pixels):
    return pixels


class Images(NamedTuple):
    """A data set as it is stored: bytes."""

    pixels: torch.Tensor   # (rows, 3, 32, 32) uint8
    labels: torch.Tensor   # (rows) what is to be told
    classes: torch.Tensor  # (rows) the ten classes: the clusters

    def to(self, device):
        return Images(*(tensor.to(device) for tensor in self))


def build(plan, classes):
    """The model with its softmax, as a checkpoint holds it."""
    network = BACKBONES[plan.backbone]
    if plan.model == "single":
        core = {"expert": network(classes)}
    else:
        core = {"moe": dispatch.mixture([network(classes) for _ in range(EXPERTS)], plan.change != "rows")}
    return nn.Sequential(OrderedDict(core, softmax=nn.Softmax(dim=-1)))


def optimizers(plan, model):
    """The first one is that of the experts."""
    experts = [model.expert] if plan.model == "single" else model.moe.experts
    if plan.method == "ngd":
        result = [NormalizedGD([{"params": list(each.parameters())} for each in experts], EXPERT_RATE, MOMENTUM, DECAY)]
    else:
        weights = [weight for each in experts for weight in each.parameters()]
        result = [torch.optim.SGD(weights, EXPERT_RATE, MOMENTUM, weight_decay=DECAY)]
    if plan.model == "moe" and plan.change != "noise":
        result.append(torch.optim.SGD(model.moe.gate.parameters(), ROUTER_RATE, MOMENTUM, weight_decay=DECAY))
    return result


class ImageJob(runner.Job):
    """Trains on the device that the images are on. On a GPU the steps of an epoch are replays of one recorded step."""

    def __init__(self, plan, recipe, sets, epochs):
        self.plan, self.recipe, self.sets = plan, recipe, sets
        self.device = sets["train"].pixels.device
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None  # the default one cannot be recorded
        self.model = build(plan, len(recipe.labels)).to(self.device)
        if self.stream is not None:
            self.model.to(memory_format=torch.channels_last)
            set_mixed(self.model, True)
        self.optimizers = optimizers(plan, self.model)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizers[0], recipe.cosine_epochs or epochs)
        parts = {f"optimizer{index}": optimizer for index, optimizer in enumerate(self.optimizers)}
        super().__init__(self.model, {**parts, "schedule": self.schedule}, epochs)
        self.tests = []  # what `tested` gives, after every epoch
        self.figures = {key: torch.tensor(value, device=self.device) for key, value in
                        {"mean": recipe.preprocess["mean"], "std": recipe.preprocess["std"]}.items()}
        self.sums = torch.zeros(2, device=self.device)  # of the epoch: loss, wrong answers
        self.batch = torch.zeros(BATCH_ROWS, dtype=torch.int64, device=self.device)  # what a recorded step reads
        self.graph, self.eager_steps = None, EAGER_STEPS

    def entered(self, pixels):
        """Pixels 0..255 as the networks take them."""
        mean, std = (self.figures[key][:, None, None] for key in ("mean", "std"))
        images = (pixels * self.recipe.preprocess["scale"] - mean) / std
        return images if self.stream is None else images.contiguous(memory_format=torch.channels_last)

    def loss(self, logits, labels):
        """The cross entropy, and of a mixture the balance loss of Switch Transformers."""
        answers = logits.softmax(dim=1) if self.plan.method == "ngd" else logits
        loss = nn.functional.cross_entropy(answers, labels)
        if self.plan.model == "single":
            return loss
        routing = self.model.moe.routing
        shares = torch.stack([(routing.experts == index).float().mean() for index in range(EXPERTS)])
        return loss + BALANCE * EXPERTS * (shares * routing.probabilities.mean(dim=0)).sum()

    def step(self, batch):
        pixels, labels = (self.sets["train"][part][batch] for part in (0, 1))
        logits = self.model[0](self.entered(self.recipe.augmented(pixels.float())))
        loss = self.loss(logits, labels)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        wrong = (logits.detach().argmax(dim=1) != labels).sum()
        self.sums += torch.stack([loss.detach() * len(batch), wrong.float()])

    def record(self):
        """A graph of one step, which takes its rows from `batch`. The learning rates of the epoch are part of it."""
        before, graph = self.graph, torch.cuda.CUDAGraph()
        pool = () if before is None else (before.pool(),)
        graph.capture_begin(*pool, capture_error_mode="thread_local")
        self.step(self.batch)
        graph.capture_end()
        self.graph = graph

    def records(self):
        """Experts that get only their own images get another number of them every time: that cannot be recorded."""
        return self.stream is not None and self.plan.change != "rows"

    def steps(self):
        order, fresh = torch.randperm(len(self.sets["train"].labels), device=self.device), True
        for batch in order.split(BATCH_ROWS):
            if not self.records() or len(batch) < BATCH_ROWS or self.eager_steps > 0:
                self.step(batch)
                self.eager_steps -= 1
                continue
            if fresh:
                self.record()
                fresh = False
            self.batch.copy_(batch)
            self.graph.replay()

    def epoch(self):
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())
        self.model.train()
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            self.sums.zero_()
            self.steps()
            self.schedule.step()
            self.tests.append(self.tested().tolist())
            return tuple((self.sums / len(self.sets["train"].labels)).tolist())

    def tested(self):
        """The errors on the test images, and on every fourth of them treated like those of training."""
        images = self.sets["test"]
        errors = [self.error(images, as_it_is)]
        if self.recipe.treats:
            errors.append(self.error(Images(*(tensor[::4] for tensor in images)), self.recipe.treated))
        return torch.stack(errors)

    def error(self, images, treat):
        return (self.answers(images, treat).predicted != images.labels).double().mean()

    @torch.no_grad()
    def answers(self, images, treat):
        self.model.eval()
        parts = [self._answers(self.entered(treat(pixels.float()))) for pixels in images.pixels.split(TEST_ROWS)]
        return Answers(*(torch.cat(each) for each in zip(*parts)))

    def _answers(self, images):
        """As Answers. All experts run on all images."""
        if self.plan.model == "single":
            predicted = self.model.expert(images).argmax(dim=1)
            return predicted, torch.zeros_like(predicted), predicted[:, None]
        chosen = self.model.moe.gate.layers(images).argmax(dim=1)
        alone = torch.stack([expert(images).argmax(dim=1) for expert in self.model.moe.experts], dim=1)
        return alone.gather(1, chosen[:, None])[:, 0], chosen, alone

    def state(self):
        random = {"cuda_random": torch.cuda.get_rng_state()} if self.stream else {}
        return {**super().state(), **random, "tests": self.tests}

    def restore(self, state):
        super().restore(state)
        self.tests = state["tests"]
        if self.stream:
            torch.cuda.set_rng_state(state["cuda_random"])


class Answers(NamedTuple):
    predicted: torch.Tensor  # (rows)
    expert: torch.Tensor     # (rows) which one answered
    alone: torch.Tensor      # (rows, experts) what each would have said


def count(groups, group_count, experts):
    """(groups, experts): how many images of a group each expert got."""
    pairs = torch.bincount(groups * EXPERTS + experts, minlength=group_count * EXPERTS)
    return pairs.reshape(group_count, EXPERTS)


def routing_figures(test, answers, train, train_answers):
    """Who gets what: by class, and by label where that is another thing."""
    by_class = count(test.classes, 10, answers.expert)
    figures = {"share": (by_class.sum(dim=0).double() / len(test.labels)).tolist(), "dispatch": by_class.tolist(),
               "dispatch_entropy_nats": metrics.dispatch_entropy_nats(by_class.cpu()),
               "train_dispatch_entropy_nats":
                   metrics.dispatch_entropy_nats(count(train.classes, 10, train_answers.expert).cpu()),
               "expert_test_errors": (answers.alone != test.labels[:, None]).double().mean(dim=0).tolist()}
    if not torch.equal(test.labels, test.classes):
        figures["dispatch_by_label"] = count(test.labels, 2, answers.expert).tolist()
    return figures


class ImageRecipe(runner.Recipe):
    """A recipe gives the attributes below and `read_raw(path)`: {"train": Images, "test": Images}.

    augmented(pixels)  a batch of floats 0..255, as training sees it
    treated(pixels)    the same without what is there for variety only; `treats`: it changes them
    """

    variants = tuple(PLANS)
    seeds = (0,)
    device, treats = "cpu", False
    labels, preprocess = (), {}
    epochs = {}           # by backbone: the authors'
    cosine_epochs = None  # over which the learning rate falls to nothing; None: all
    title = about_images = about_data = ""

    def __init__(self):
        self.sets = None

    def augmented(self, pixels):
        return self.treated(pixels)

    def treated(self, pixels):
        return pixels

    def read(self, directory, variant):
        if self.sets is None:
            self.sets = {name: images.to(self.device) for name, images in self.read_raw(directory).items()}
        return self.sets

    def job(self, variant, data, teacher, epochs):
        plan = PLANS[variant]
        return ImageJob(plan, self, data, epochs or self.epochs[plan.backbone])

    def measure(self, job, data):
        test, train = data["test"], data["train"]
        answers, train_answers = job.answers(test, as_it_is), job.answers(train, self.treated)
        errors = [round(test[0], 5) for test in job.tests]
        best = min(range(len(errors)), key=errors.__getitem__)
        result = {"train_error": (train_answers.predicted != train.labels).double().mean().item(),
                  "test_error": errors[-1], "best_test_error": errors[best], "best_epoch": best + 1,
                  "test_errors": errors}
        if self.treats:
            result.update({"test_error_treated": job.error(test, self.treated).item(),
                           "test_errors_treated": [round(test[1], 5) for test in job.tests]})
        return {**result, **(routing_figures(test, answers, train, train_answers) if job.plan.model == "moe" else {})}

    def export(self, variant, model, data, row, options, directory):
        """Of the mixtures it writes the plain MoE, which evaluates the same."""
        plan = PLANS[variant]
        if plan.model == "moe":
            model = nn.Sequential(OrderedDict(moe=MoE(model.moe.experts, model.moe.gate), softmax=nn.Softmax(dim=-1)))
        images, labels = preprocess(data["test"].pixels.cpu(), self.preprocess), data["test"].labels.cpu()
        model = model.cpu().eval()
        set_mixed(model, False)

        def write(measured):
            export(model, torch.zeros(1, 3, 32, 32), directory, input_name="image", preprocess=self.preprocess,
                   output_name="probabilities", labels=self.labels, dtype=options.dtype, routing_reference=measured,
                   description=f"{self.title}: {ABOUT[plan.model]}")
            return load(directory).layers

        stored, facts = write(None), card.origin(self.about_data, options.command, row, model, options.dtype)
        facts.update(card.accuracy(training.error_of(stored, stored, images, labels), row["test_error"],
                                   row["train_error"], options.dtype))
        if plan.model == "moe":
            measured = reference.summed(stored.eval(), images.split(2000), {"moe": EXPERTS})
            write(measured)
            facts.update({"Experts": f"{EXPERTS}, 1 per row",
                          "Rows served, by expert": card.percents(measured["moe"]["share"])})
        card.write(directory, f"{self.about_images} with {ABOUT[plan.model]}.", facts,
                   "Accuracy and routing were measured on the weights as stored, on all test images.")
