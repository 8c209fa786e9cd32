"""Runs recipes: every (variant, seed) of a recipe becomes one row of results, by one command.

A run is a Job. Its state (weights, optimisers, random numbers, history) is saved every half minute under
RESULTS/work/, so an interrupted command, repeated, goes on where it stopped and ends with the same bits. A finished run
leaves its row in RESULTS/<recipe>/<variant>-seed<seed>.json and is not run again while the row is there.
"""

import argparse
import contextlib
import copy
import json
import os
import shlex
import sys
import time

import torch

from recipes.idx import DataMissing

SAVE_SECONDS = 30
HEX = "float in hexadecimal"  # PyTorch 1.13 reads no float with weights_only


class Job:
    """One training in progress. `model` is trained by `epoch`, which returns (loss, training error) of one pass.

    `parts` are what has a state_dict: the model, its optimisers and schedules. `history` holds epoch's results so far.
    """

    def __init__(self, model, parts, epochs):
        self.model = model
        self.parts = {"model": model, **parts}
        self.epochs = epochs
        self.history = []
        self.cpu_seconds = 0.0  # of the process: what a run costs, whatever else the machine does meanwhile

    def epoch(self):
        raise NotImplementedError

    def finished(self):
        return len(self.history) >= self.epochs

    def state(self):
        return {"parts": {name: part.state_dict() for name, part in self.parts.items()}, "history": self.history,
                "cpu_seconds": self.cpu_seconds, "random": torch.get_rng_state()}

    def restore(self, state):
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.history, self.cpu_seconds = state["history"], state["cpu_seconds"]
        torch.set_rng_state(state["random"])


class Recipe:
    """What a recipe module defines; see mnist.py for a short one.

    name, about       of the command; about is its --help
    variants          names of the trainings, in the order in which they are run
    seeds, data       defaults of --seeds and --data; data None: the recipe makes its own
    top_k             default of --top-k; None: how many experts serve a row is part of the training
    device            default of --device, and then what was asked for; None: the recipe knows only the CPU
    """

    name = about = data = top_k = device = None
    variants, seeds = (), (0, 1, 2)

    def read(self, directory, variant):
        """The data set, whatever the recipe's other methods take as `data`."""
        raise NotImplementedError

    def teacher(self, variant):
        """The variant whose trained model, of the same seed, this one starts from."""
        return None

    def job(self, variant, data, teacher, epochs):
        """The Job, freshly initialised; PyTorch's random numbers have just been seeded. epochs None: the paper's."""
        raise NotImplementedError

    def measure(self, job, data):
        """The row's figures, as a dict that JSON can hold."""
        raise NotImplementedError

    def export(self, variant, model, data, row, options, directory):
        """Writes the trained model and its card as a checkpoint."""
        raise NotImplementedError


class Runner:
    """The runs of one recipe under one directory of results."""

    def __init__(self, recipe, options):
        self.recipe, self.options = recipe, options
        self.folder = os.path.join(options.results, recipe.name)
        self.work = os.path.join(options.results, "work", recipe.name)
        self.data = {}

    def row_path(self, variant, seed):
        return os.path.join(self.folder, f"{variant}-seed{seed}.json")

    def state_path(self, variant, seed):
        return os.path.join(self.work, f"{variant}-seed{seed}.pt")

    def read(self, variant):
        """Variants may share data; recipes that care give the same object for the same files."""
        if variant not in self.data:
            self.data[variant] = self.recipe.read(self.options.data, variant)
        return self.data[variant]

    def job(self, variant, seed):
        """The Job as it was last saved; a new one if it never was."""
        teacher = self.recipe.teacher(variant)
        model = None if teacher is None else self.run(teacher, seed)[0].model
        torch.manual_seed(seed)
        job = self.recipe.job(variant, self.read(variant), model, self.options.epochs)
        with contextlib.suppress(FileNotFoundError):
            job.restore(read_state(self.state_path(variant, seed)))
        return job

    def run(self, variant, seed):
        """Trains and measures, or takes what is there. Returns (job, row)."""
        label = f"{self.recipe.name} {variant} seed {seed}"
        job = self.job(variant, seed)
        if not job.finished():
            self._train(job, variant, seed, Progress(label, job.epochs))
        path = self.row_path(variant, seed)
        row = read_json(path)
        if row is None or row["epochs"] != len(job.history):
            row = self._row(job, variant, seed)
            write_file(path, json.dumps(row, indent=1) + "\n")
        return job, row

    def _train(self, job, variant, seed, progress):
        path, saved = self.state_path(variant, seed), time.monotonic()
        while not job.finished():
            start = time.process_time()
            job.history.append(job.epoch())
            job.cpu_seconds += time.process_time() - start
            progress.epoch(job)
            if job.finished() or time.monotonic() - saved > SAVE_SECONDS:
                save_state(path, job.state())
                saved = time.monotonic()

    def _row(self, job, variant, seed):
        command = ["python3", "-m", f"recipes.{self.recipe.name}", "--variant", variant, "--seeds", str(seed)]
        if self.options.epochs:
            command += ["--epochs", str(self.options.epochs)]
        place = {"cpu_seconds": round(job.cpu_seconds, 1), "threads": torch.get_num_threads()}
        if self.recipe.device == "cuda":
            command += ["--device", "cuda"]
            place = {"device": torch.cuda.get_device_name()}
        return {"recipe": self.recipe.name, "variant": variant, "seed": seed, "epochs": len(job.history),
                **self.recipe.measure(job, self.read(variant)), **place, "torch": torch.__version__,
                "command": shlex.join(command)}

    def is_done(self, variant, seed):
        """Whether there is nothing to do: a row, of the epochs asked for. Its state may have been deleted since."""
        row = read_json(self.row_path(variant, seed))
        return row is not None and self.options.epochs in (None, row["epochs"]) and not self.options.out

    def all(self):
        for seed in self.options.seeds:
            for variant in self.options.variant:
                if self.is_done(variant, seed):
                    print(f"{self.row_path(variant, seed)}: done", file=sys.stderr)
                    continue
                job, row = self.run(variant, seed)
                if self.options.out:
                    self._export(job, row, variant, seed)
                print(json.dumps(row), flush=True)

    def _export(self, job, row, variant, seed):
        directory = self.options.out
        if len(self.options.seeds) * len(self.options.variant) > 1:
            directory = os.path.join(directory, f"{variant}-seed{seed}")
        self.recipe.export(variant, job.model, self.read(variant), row, self.options, directory)
        print(f"{directory}: written", file=sys.stderr)


class Progress:
    """A line every few seconds on standard error; on a terminal the times are dimmed."""

    def __init__(self, label, epochs):
        self.label, self.epochs = label, epochs
        self.last = 0.0
        self.dim, self.plain = ("\033[2m", "\033[0m") if sys.stderr.isatty() else ("", "")

    def epoch(self, job):
        now = time.monotonic()
        if now - self.last < 2 and not job.finished():
            return
        self.last = now
        loss, error = job.history[-1]
        print(f"{self.label}  epoch {len(job.history):3d}/{self.epochs}  loss {loss:.4f}  training error "
              f"{100 * error:6.2f} %  {self.dim}{job.cpu_seconds:6.0f} s{self.plain}", file=sys.stderr, flush=True)


def read_json(path):
    """The file's content; None if there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def write_file(path, text):
    """Whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def save_state(path, state):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    torch.save(_changed(state, lambda value: {HEX: value.hex()} if isinstance(value, float) else value), path + ".new")
    os.replace(path + ".new", path)


def read_state(path):
    """Tensors and plain values only: a pickle may name any function to be called, and results are passed on."""
    state = torch.load(path, weights_only=True)
    return _changed(state, lambda value: float.fromhex(value[HEX]) if type(value) is dict and HEX in value else value)


def _changed(value, change):
    """A copy of a state, with what change() makes of each value in it."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        made = copy.copy(value)  # an OrderedDict with what state_dict() has put beside its entries
        made.update({key: _changed(item, change) for key, item in value.items()})
        return made
    return type(value)(_changed(item, change) for item in value) if isinstance(value, (list, tuple)) else value


def parser(recipe):
    result = argparse.ArgumentParser(prog=f"python3 -m recipes.{recipe.name}", description=recipe.about,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--variant", nargs="+", choices=recipe.variants, default=list(recipe.variants), metavar="NAME",
        help=f"trainings to run (default all): {', '.join(recipe.variants)}")
    add("--seeds", nargs="+", type=int, default=list(recipe.seeds), metavar="N",
        help=f"seeds of each (default {' '.join(map(str, recipe.seeds))})")
    if recipe.data is not None:
        add("--data", metavar="DIR", default=recipe.data, help=f"where the data set is (default {recipe.data})")
    add("--out", metavar="DIR", help="write the trained model as a checkpoint for moed serve; several go to "
                                     "DIR/VARIANT-seedN")
    if recipe.top_k is not None:
        add("--top-k", type=int, default=recipe.top_k, metavar="K",
            help=f"experts per row of an exported plain gate (default {recipe.top_k})")
    if recipe.device is not None:
        add("--device", choices=("cpu", "cuda"), default=recipe.device,
            help="where to train; a GPU's results are not the same bits every time (default cpu)")
    add("--dtype", choices=("f32", "f16", "bf16"), default="f16", help="weights of the checkpoint (default f16)")
    add("--results", metavar="DIR", default="results", help="where rows go, and under work/ the state of interrupted "
                                                            "runs (default ./results)")
    add("--epochs", type=int, help="another number of epochs than the paper's")
    add("--threads", type=int, default=1, help="results are reproducible per number of threads (default 1)")
    return result


def main(recipe, arguments=None):
    options = parser(recipe).parse_args(arguments)
    options.data = getattr(options, "data", None)
    options.command = shlex.join(["python3", "-m", f"recipes.{recipe.name}", *(arguments or sys.argv[1:])])
    torch.set_num_threads(options.threads)
    on_gpu = getattr(options, "device", None) == "cuda"
    torch.use_deterministic_algorithms(not on_gpu)
    if recipe.device is not None:
        recipe.device = options.device
    try:
        Runner(recipe, options).all()
    except DataMissing as error:
        sys.exit(f"{recipe.name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{recipe.name}: interrupted; the same command goes on from here")
