"""The Fashion-MNIST mixtures of arXiv 2302.14703: five small experts and a gate, trained on a CPU in minutes.

    python3 -m moed.recipes.fashion_mnist --model attentive --out DIR
    python3 -m moed.recipes.fashion_mnist --model distilled --teacher DIR --out DIR2

`attentive` trains experts and attentive gate together with the sample-similarity loss L_s; every expert runs for every
row. `distilled` keeps a teacher's experts frozen and trains a plain gate for them, which then selects top_k experts.
`plain` trains experts and a plain gate together.
"""

import argparse
import copy
import json
import shlex
import sys
from collections import OrderedDict

import torch
from torch import nn

from moed import losses
from moed.export import export
from moed.layers import AttentiveGate, Gate, MoE
from moed.load import load, preprocess
from moed.recipes import card, idx, training

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PREPROCESS = {"scale": 1 / 255, "mean": [0.2859], "std": [0.3530]}
EXPERTS = 5
HIDDEN = 32  # size of the gate's and the experts' last hidden vector, which attention compares
BATCH_ROWS = 512
RATE = 1e-3
DATA = ("Fashion-MNIST (Zalando Research, MIT licence; Debian package `dataset-fashion-mnist`): 60,000 images to "
        "train, 10,000 to test")
DATA_ADVICE = "Install it with `apt-get install dataset-fashion-mnist`, or name its directory with --data."


def expert():
    """conv 3x3 -> 169 -> 64 -> 32 -> 10 class probabilities. Attention reads fc2 before its ReLU."""
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(1, 1, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        fc1=nn.Linear(169, 64), relu1=nn.ReLU(), fc2=nn.Linear(64, HIDDEN), relu2=nn.ReLU(),
        out=nn.Linear(HIDDEN, len(LABELS)), softmax=nn.Softmax(dim=-1)))


def wide_gate_layers():
    """The paper's Fashion-MNIST gate without its output layer: eight filters, 1352 -> 512 -> 32."""
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(1, 8, 3), norm=nn.BatchNorm2d(8), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        fc1=nn.Linear(1352, 512), relu1=nn.ReLU(), fc2=nn.Linear(512, HIDDEN), relu2=nn.ReLU()))


def light_gate_layers():
    """The paper's MNIST gate without its output layer: one filter, 169 -> 128 -> 32."""
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(1, 1, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(),
        fc1=nn.Linear(169, 128), relu1=nn.ReLU(), fc2=nn.Linear(128, HIDDEN), relu2=nn.ReLU()))


GATE_LAYERS = {"wide": wide_gate_layers, "light": light_gate_layers}


def attentive_model(options):
    gate = AttentiveGate(GATE_LAYERS[options.gate](), HIDDEN, key_layer="fc2")
    return MoE([expert() for _ in range(EXPERTS)], gate)


def plain_model(options):
    layers = GATE_LAYERS[options.gate]()
    layers.add_module("out", nn.Linear(HIDDEN, EXPERTS))
    return MoE([expert() for _ in range(EXPERTS)], Gate(layers))


def distilled_model(options):
    """A plain gate for the teacher's experts, which no longer change.

    The gate starts from the teacher's gate where the two are alike; its output layer, which attention lacks, is new.
    """
    teacher = load(options.teacher).layers.moe
    model = plain_model(options)
    model.experts = copy.deepcopy(teacher.experts).requires_grad_(False)
    if options.gate == "wide":
        model.gate.layers.load_state_dict(teacher.gate.layers.state_dict(), strict=False)
    return model


MODELS = {"attentive": attentive_model, "distilled": distilled_model, "plain": plain_model}
ABOUT = {
    "attentive": "Classifies 28x28 grey images of clothes with five small experts. Its attentive gate compares the "
                 "image with what every expert makes of it, so all experts run for every image: a dense model.",
    "distilled": "Classifies 28x28 grey images of clothes with five small experts, of which a plain gate selects a "
                 "few per image: a sparse model. The experts are those of the attentive teacher, unchanged; the gate "
                 "was trained for them.",
    "plain": "Classifies 28x28 grey images of clothes with five small experts, of which a plain gate selects a few per "
             "image: a sparse model. Gate and experts were trained together.",
}


def regularizer(options):
    """L_s where experts learn; a distilled gate is trained on the task alone, as in the paper."""
    if options.model == "distilled":
        return None
    return lambda p, images: losses.sample_similarity_loss(
        p, losses.pairwise_distance(images), options.beta_same, options.beta_different)


def read_data(directory):
    """{"train": (images, labels), "test": ...}: raw pixels 0..255 as (rows, 1, 28, 28) float32."""
    sets = {}
    for name, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = idx.read_set(directory, prefix, DATA_ADVICE)
        sets[name] = (torch.from_numpy(images.astype("float32")).unsqueeze(1),
                      torch.from_numpy(labels.astype("int64")))
    return sets


def train_model(options, images, labels):
    """Trains densely, as the paper does, and only then lets the gate select."""
    moe = MODELS[options.model](options)
    seconds = training.train(moe, images, labels, options.epochs, BATCH_ROWS, RATE, regularizer(options))
    if options.model != "attentive":
        moe.gate.top_k, moe.gate.normalize = options.top_k, options.normalize
    return moe, seconds


def store(options, moe, images, labels):
    """Writes the checkpoint and returns its MoE layer as the server will see it, rounding included.

    Written twice: the routing reference is that of the stored weights, which exist only after the first time.
    """
    def write(layers, reference):
        export(layers, options.out, (1, 28, 28), input_name="image", preprocess=PREPROCESS,
               output_name="probabilities", labels=LABELS, dtype=options.dtype, routing_reference=reference,
               description=f"Fashion-MNIST, {options.model} mixture of {EXPERTS} experts")
        return load(options.out).layers

    layers = write(nn.Sequential(OrderedDict(moe=moe)), None)
    share = training.evaluate(layers.moe, images, labels)["share"]
    return write(layers, {"moe": {"share": share, "rows": len(images)}}).moe


def stored_numbers(moe):
    """Parameters and running statistics: what the checkpoint holds."""
    return sum(tensor.numel() for tensor in moe.state_dict().values() if tensor.is_floating_point())


def run(options, command):
    """Trains, stores and measures. `command` is what the model card tells a reader to repeat."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    data = {name: (preprocess(raw, PREPROCESS), labels) for name, (raw, labels) in read_data(options.data).items()}
    moe, seconds = train_model(options, *data["train"])
    trained = training.evaluate(moe, *data["test"])
    if options.out:
        moe = store(options, moe, *data["test"])
    stored = training.evaluate(moe, *data["test"])
    row = {"model": options.model, "gate": options.gate, "seed": options.seed, "epochs": options.epochs,
           "experts": EXPERTS, "top_k": moe.gate.top_k or EXPERTS,
           "train_error": training.evaluate(moe, *data["train"])["error"], "test_error": stored.pop("error"),
           "test_error_f32": trained["error"], **stored, "train_seconds": round(seconds), "threads": options.threads,
           "dtype": options.dtype, "parameters": stored_numbers(moe), "torch": torch.__version__}
    if options.out:
        card.write(options.out, ABOUT[options.model], DATA, command, row)
    print(json.dumps(row))


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python3 -m moed.recipes.fashion_mnist", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint of the attentive model (distilled only)")
    parser.add_argument("--out", metavar="DIR", help="checkpoint directory to write; without it nothing is kept")
    parser.add_argument("--gate", choices=GATE_LAYERS, default="wide", help="gate network (default wide)")
    parser.add_argument("--top-k", type=int, default=2, help="experts per row of a plain gate (default 2)")
    parser.add_argument("--normalize", choices=("none", "sum"), default="sum", help="combine weights (default sum)")
    parser.add_argument("--beta-same", type=float, default=1e-6, help="L_s, same-expert term (default 1e-6)")
    parser.add_argument("--beta-different", type=float, default=1e-6, help="L_s, other-expert term (default 1e-6)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="results are reproducible per thread count (default 1)")
    parser.add_argument("--dtype", choices=("f32", "f16", "bf16"), default="f16", help="stored weights (default f16)")
    parser.add_argument("--data", metavar="DIR", default="/usr/share/datasets/fashion-mnist")
    options = parser.parse_args(arguments)
    if (options.model == "distilled") != (options.teacher is not None):
        parser.error("--teacher goes with --model distilled, which needs it")
    return options


if __name__ == "__main__":
    try:
        run(parse(sys.argv[1:]), shlex.join(["python3", "-m", "moed.recipes.fashion_mnist", *sys.argv[1:]]))
    except idx.DataMissing as error:
        sys.exit(f"fashion_mnist: {error}")
