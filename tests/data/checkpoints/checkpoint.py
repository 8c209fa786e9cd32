"""Checkpoints in memory, and the edits that damage them; see make.py."""

import copy
import json
import struct

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16}


class Checkpoint:
    """A checkpoint in memory, at every level a case may want to damage."""

    def __init__(self, config, tensors, dtype="F32", shards=1):
        self.config = config
        self.tensors = {name: np.asarray(values, DTYPES[dtype]) for name, values in tensors.items()}
        self.dtype = dtype
        self.shards = shards
        self.edits = {"header": [], "files": []}

    def files(self):
        """File name -> content; a content of None stands for a directory of that name."""
        files = {"config.json": to_json(self.config)}
        names = list(self.tensors)
        if self.shards == 1:
            files["model.safetensors"] = self.safetensors(names)
        else:
            shard_of = {}
            for i in range(self.shards):
                shard = f"model-{i + 1:05}-of-{self.shards:05}.safetensors"
                part = names[i * len(names) // self.shards:(i + 1) * len(names) // self.shards]
                files[shard] = self.safetensors(part)
                shard_of.update(dict.fromkeys(part, shard))
            files["model.safetensors.index.json"] = to_json({"weight_map": shard_of})
        for edit in self.edits["files"]:
            edit(files)
        return files

    def safetensors(self, names):
        header, data = {}, b""
        for name in names:
            values = self.tensors[name]
            end = len(data) + values.nbytes
            header[name] = {"dtype": self.dtype, "shape": list(values.shape), "data_offsets": [len(data), end]}
            data += values.tobytes()
        for edit in self.edits["header"]:
            edit(header)
        return container(to_json(header, align=8), data)

    def write(self, directory):
        directory.mkdir(parents=True)
        for name, content in self.files().items():
            if content is None:
                (directory / name).mkdir()
                (directory / name / "placeholder").write_text("A directory where a file should be.\n")
            else:
                (directory / name).write_bytes(content)


def to_json(value, align=1):
    text = json.dumps(value, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % align)


def container(header, data):
    return struct.pack("<Q", len(header)) + header + data


# ---- edits: what a bad checkpoint has and a good one has not ----

def _steps(path):
    return [int(step) if step.isdigit() else step for step in path.split(".")]


def put(path, value):
    """config[path] = value; the path is written as "layers.0.gate.top_k"."""
    def edit(checkpoint):
        *way, last = _steps(path)
        node = checkpoint.config
        for step in way:
            node = node[step]
        node[last] = copy.deepcopy(value)
    return edit


def drop(path):
    def edit(checkpoint):
        *way, last = _steps(path)
        node = checkpoint.config
        for step in way:
            node = node[step]
        del node[last]
    return edit


def layers(shape, *chain, tensors=None, version=1):
    """A model of nothing but these layers over rows of this shape."""
    def edit(checkpoint):
        checkpoint.config = {"model_type": "moed", "format_version": version, "input": {"shape": shape},
                             "layers": list(chain)}
        checkpoint.tensors = {name: np.asarray(v, np.float32) for name, v in (tensors or {}).items()}
    return edit


def tensor(name, values):
    """Adds or replaces a tensor; None removes it."""
    def edit(checkpoint):
        checkpoint.tensors.pop(name, None)
        if values is not None:
            checkpoint.tensors[name] = np.asarray(values, DTYPES[checkpoint.dtype])
    return edit


def entry(name, **members):
    """Rewrites members of a tensor's header entry; a member of None is removed."""
    def rewrite(header):
        header[name].update(members)
        for member in [m for m, value in members.items() if value is None]:
            del header[name][member]
    return lambda checkpoint: checkpoint.edits["header"].append(rewrite)


def header(edit):
    return lambda checkpoint: checkpoint.edits["header"].append(edit)


def files(edit):
    """Edits {file name: bytes} just before they are written."""
    return lambda checkpoint: checkpoint.edits["files"].append(edit)


def file(name, content):
    return files(lambda all_files: all_files.update({name: content}))


def no_file(name):
    return files(lambda all_files: all_files.pop(name))
