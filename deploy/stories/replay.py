"""Three stories that routing statistics tell, replayed with the shipped Fashion-MNIST model.

    python3 deploy/stories/replay.py [STORY...] [--pictures DIR] [--dying]

A server on a free port of this machine gets some thousands of test images, and something goes wrong: an expert dies,
the data moves, a tenant overloads an expert. Prints what the figures did, and checks it: exit status 1 if they did not
do what deploy/ROUTING.md says. Takes some seconds; --dying waits for six minutes, until the server calls the expert
dying. --pictures writes the page's pictures.

Needs a built server, Debian's dataset-fashion-mnist, and nothing but Python's standard library.
"""

import argparse
import gzip
import os
import tempfile
import time

import svg

from server import IMAGE_BYTES, MODEL, Failed, Server, run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = "/usr/share/datasets/fashion-mnist"
LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
EXPERTS, ROWS, REQUEST_ROWS = 5, 2000, 100
DEAD = 3
GONE = ("Pullover", "Coat", "Shirt")
LIMIT_PSI, CHANCE = 0.1, 0.001  # those of deploy/prometheus/rules.yml
RECENT_SECONDS = 330  # five minutes, and a step


class Images:
    """The test set, always in the same order."""

    def __init__(self, directory):
        def content(name, header):
            path = os.path.join(directory, name)
            if not os.path.exists(path):
                raise Failed(f"{path} is missing. On Debian: apt-get install dataset-fashion-mnist")
            with gzip.open(path) as file:
                return file.read()[header:]
        self.pixels = content("t10k-images-idx3-ubyte.gz", 16)
        self.labels = content("t10k-labels-idx1-ubyte.gz", 8)

    def of(self, classes, count):
        """The first `count` images of these classes: (image, label)."""
        wanted = {LABELS.index(name) for name in classes}
        chosen = [i for i, label in enumerate(self.labels) if label in wanted][:count]
        return [(self.pixels[i * IMAGE_BYTES:(i + 1) * IMAGE_BYTES], self.labels[i]) for i in chosen]


def send(server, rows, tag=None):
    for at in range(0, len(rows), REQUEST_ROWS):
        images, labels = zip(*rows[at:at + REQUEST_ROWS])
        server.send(images, labels, tag)


def check(holds, what):
    print(f"    {'as expected' if holds else 'NOT AS EXPECTED'}: {what}")
    if not holds:
        check.failed = True


check.failed = False


# --- what is shown ----------------------------------------------------------------------------------------------

def layer_of(server, query=""):
    return server.routing(query)["layers"][0]


def column(layer, key):
    return [expert[key] for expert in layer["experts"]]


def percent(value):
    return "    -" if value is None else f"{value:5.1%}"


def table(title, layers, key):
    """{name: layer} side by side: this key of each expert."""
    print(f"\n    {title}")
    print("    expert" + "".join(f"{name:>16}" for name in layers))
    for i in range(EXPERTS):
        print(f"    {i:>6}" + "".join(f"{percent(layer['experts'][i][key]):>16}" for layer in layers.values()))


def accuracies(layer):
    """By class and expert, where there are enough rows to say."""
    truth = layer["classes"]["truth"]
    print("\n    Accuracy, by the true class and the expert that came first, of at least five rows")
    print(f"    {'class':<12}" + "".join(f"{i:>8}" for i in range(EXPERTS)))
    for c, name in enumerate(LABELS):
        print(f"    {name:<12}" + "".join(f"{percent(right[c] / counted[c] if counted[c] >= 5 else None):>8}"
                                         for right, counted in zip(truth["correct"], truth["counts"])))


def figures(layers, keys):
    print(f"\n    {'':>24}" + "".join(f"{name:>16}" for name in layers))
    for key in keys:
        print(f"    {key:>24}" + "".join(f"{number(layer, key):>16}" for layer in layers.values()))


def number(layer, key):
    value = layer
    for part in key.split("."):
        value = None if value is None else value[part]
    if value is None:
        return "-"
    if key.endswith("p_value") and value < 1e-300:
        return "< 1e-300"  # what no double can hold
    return str(value) if isinstance(value, (int, list)) else f"{value:.2g}" if value < 0.001 else f"{value:.3f}"


BALANCE = ("usage_entropy_bits", "gate_entropy_bits", "margin", "imbalance", "effective_experts", "unused",
           "drift.reference.psi", "drift.reference.p_value")


# --- the stories ------------------------------------------------------------------------------------------------

def an_expert_dies(server, images, arguments):
    """First its weights go wrong, then the gate no longer chooses it."""
    rows = images.of(LABELS, ROWS)
    send(server, rows)
    well = layer_of(server, "?include=classes,margins")
    server.replace({f"moe.experts.{DEAD}.out.weight": lambda values: [0.0] * len(values)})
    server.reset()
    send(server, rows)
    broken = layer_of(server)
    bias = [0.0] * EXPERTS
    bias[DEAD] = -1000.0
    server.replace({"moe.gate.out.bias": lambda values: [a + b for a, b in zip(values, bias)]})
    server.reset()
    send(server, rows)
    gone = layer_of(server)
    layers = {"well": well, "broken": broken, "gone": gone}
    table(f"Share of the selections; expert {DEAD}'s last matrix becomes zero, then the gate avoids it", layers,
          "share")
    table("Accuracy, by the expert that came first", layers, "accuracy")
    accuracies(well)
    figures(layers, BALANCE)
    accuracy = [column(layer, "accuracy") for layer in (well, broken)]
    check(accuracy[1][DEAD] < 0.8 * accuracy[0][DEAD], "broken: the expert is right far less often (MoedExpertFailing)")
    check(all(accuracy[1][i] > 0.8 * accuracy[0][i] for i in range(EXPERTS) if i != DEAD), "broken: the others are not")
    check(column(well, "selected") == column(broken, "selected"), "broken: routing does not show it, labels do")
    check(gone["unused"] == 1 and gone["experts"][DEAD]["selected"] == 0, "gone: nobody is sent to it")
    check(moved(gone) and not moved(well), "gone: drift from the reference, beyond chance (MoedRoutingDrift)")
    if arguments.dying:
        wait_for_dying(server, images)
    picture(arguments, "expert-dies.svg", "An expert dies: shares of the selections", layers, "share")
    picture(arguments, "expert-dies-accuracy.svg", "An expert dies: accuracy by the expert that came first",
            {"well": well, "broken": broken}, "accuracy")
    write(arguments, "classes.svg", svg.heat(
        "Which expert comes first for which predicted class", [f"expert {i}" for i in range(EXPERTS)], LABELS,
        well["classes"]["counts"]))
    bounds, counts = well["margins"]["bounds"], well["margins"]["counts"]
    write(arguments, "margins.svg", svg.bars(
        "How far the first expert's probability is above the second's", [f"{low:.2f} to {high:.2f}" for low, high
                                                                        in zip(bounds, bounds[1:])],
        {"images": [count / sum(counts) for count in counts]}))


def wait_for_dying(server, images):
    """Healthy traffic, then none to the expert for five minutes."""
    server.replace({"moe.gate.out.bias": lambda values: [b + 1000.0 if i == DEAD else b for i, b in enumerate(values)]})
    server.reset()
    send(server, images.of(LABELS, ROWS))
    server.replace({"moe.gate.out.bias": lambda values: [b - 1000.0 if i == DEAD else b for i, b in enumerate(values)]})
    print(f"\n    waiting for {RECENT_SECONDS} s, with some rows every ten")
    until = time.monotonic() + RECENT_SECONDS
    while time.monotonic() < until:
        send(server, images.of(LABELS, REQUEST_ROWS))
        time.sleep(10)
    dying = layer_of(server, "?window=5m")["dying"]
    print(f"    dying: {dying}")
    check(dying == [DEAD], "gone for five minutes: the server calls it dying (MoedExpertDying)")


def moved(layer):
    drift = layer["drift"]["reference"]
    return drift["psi"] > LIMIT_PSI and drift["p_value"] < CHANCE


def the_data_moves(server, images, arguments):
    """Three of the ten classes are sent no more."""
    send(server, images.of(LABELS, ROWS))
    before = layer_of(server, "?include=classes")
    server.reset()
    send(server, images.of([name for name in LABELS if name not in GONE], ROWS))
    after = layer_of(server, "?include=classes")
    layers = {"all classes": before, "seven of them": after}
    table(f"Share of the selections, without {', '.join(GONE)}", layers, "share")
    figures(layers, (*BALANCE, "classes.mi_bits"))
    check(not moved(before), "all classes: no drift")
    check(moved(after), "seven of them: drift from the reference, beyond chance (MoedRoutingDrift)")
    check(after["unused"] == 0 and after["dying"] == [], "nothing is wrong with an expert")
    picture(arguments, "data-moves.svg", "The data moves: shares of the selections", layers, "share")


def a_tenant_overloads_an_expert(server, images, arguments):
    """Two tenants send a bit of everything, a third one trousers, five times as many."""
    send(server, images.of(LABELS, ROWS // 4), "shop")
    send(server, images.of(LABELS, ROWS // 2)[ROWS // 4:], "search")
    before = layer_of(server)
    trousers = images.of(["Trouser"], REQUEST_ROWS * 10)
    for _ in range(5):
        send(server, trousers, "import")
    layers = {"before": before, "now": layer_of(server),
              **{tag: layer_of(server, f"?tag={tag}") for tag in ("shop", "import")}}
    table("Share of the selections; tenant `import` sends 5,000 trousers", layers, "share")
    figures(layers, ("rows", *BALANCE))
    hot = max(range(EXPERTS), key=lambda i: layers["now"]["experts"][i]["share"])
    check(layers["now"]["imbalance"] > 1.5 * before["imbalance"], f"now: expert {hot} has most of the work")
    check(not moved(layers["shop"]) and moved(layers["import"]), "by tag: `shop` is as ever, `import` is not")
    picture(arguments, "tenant.svg", "A tenant overloads an expert: shares of the selections",
            {"before": before, "now": layers["now"], "import alone": layers["import"]}, "share")


STORIES = {"expert": an_expert_dies, "data": the_data_moves, "tenant": a_tenant_overloads_an_expert}


# --- pictures and start -----------------------------------------------------------------------------------------

def write(arguments, name, content):
    if arguments.pictures:
        with open(os.path.join(arguments.pictures, name), "w", encoding="utf-8") as file:
            file.write(content)


def picture(arguments, name, title, layers, key):
    write(arguments, name, svg.bars(title, [f"expert {i}" for i in range(EXPERTS)],
                                    {what: column(layer, key) for what, layer in layers.items()}))


def main():
    parser = argparse.ArgumentParser(description="Replays the stories of deploy/ROUTING.md.")
    parser.add_argument("stories", nargs="*", metavar="STORY", help=f"of {', '.join(STORIES)}; all of them without any")
    parser.add_argument("--moed", default=os.environ.get("MOED_BINARY", os.path.join(ROOT, "build", "release", "moed")))
    parser.add_argument("--data", default=DATA, metavar="DIR")
    parser.add_argument("--pictures", metavar="DIR", help="write the page's pictures there")
    parser.add_argument("--dying", action="store_true", help="wait until the server calls the dead expert dying")
    arguments = parser.parse_args()
    unknown = set(arguments.stories) - set(STORIES)
    if unknown:
        raise Failed(f"there is no story {sorted(unknown)}; there are {', '.join(STORIES)}")
    images = Images(arguments.data)
    for name in arguments.stories or STORIES:
        story = STORIES[name]
        print(f"\n{story.__name__.replace('_', ' ').capitalize()}. {story.__doc__}")
        with tempfile.TemporaryDirectory(prefix="moed-stories-") as directory:
            server = Server(arguments.moed, os.path.join(ROOT, "deploy", "models", MODEL), directory)
            try:
                story(server, images, arguments)
            finally:
                server.stop()
    return 1 if check.failed else 0


if __name__ == "__main__":
    run("stories", main)
