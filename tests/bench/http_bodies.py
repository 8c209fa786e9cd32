"""Requests to a model of bench_http.py: one row in every format that suits the model, and the answers' numbers."""

import json
import os
import urllib.request

import numpy as np

from bench import ROOT

DATATYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8"}


def example(name):
    with open(os.path.join(ROOT, "deploy", name), encoding="ascii") as file:
        return json.load(file)


def compact(document):
    return json.dumps(document, separators=(",", ":")).encode()


def v1(model, numbers):
    return f"/v1/models/{model}:predict", compact({"instances": [numbers]}), None


def oip_json(model, inputs):
    return f"/v2/models/{model}/infer", compact({"inputs": inputs}), None


def oip_binary(model, tensors):
    """tensors: {input's name: array with the rows first}"""
    inputs = [{"name": name, "shape": array.shape, "datatype": DATATYPES[array.dtype.name],
               "parameters": {"binary_data_size": array.nbytes}} for name, array in tensors.items()]
    head = compact({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return f"/v2/models/{model}/infer", head + b"".join(array.tobytes() for array in tensors.values()), len(head)


def float_formats(model, entry, numbers):
    """One row of an input of floats."""
    tensor = numbers.astype(np.float32).reshape(1, *entry["shape"])
    return {"V1 JSON floats": v1(model, [float(f"{x:.9g}") for x in tensor.reshape(-1)]),
            "OIP binary FP32": oip_binary(model, {entry["name"]: tensor})}


def image_formats(model, entry):
    """One image, an ankle boot. Noise makes its floats as long as floats usually are."""
    pixels = np.array(example("example.json")["instances"], dtype=np.uint8).reshape(-1)
    floats = float_formats(model, entry, pixels + np.random.default_rng(1).random(pixels.size, dtype=np.float32))
    tensor = {entry["name"]: pixels.reshape(1, *entry["shape"])}
    return {"V1 JSON floats": floats["V1 JSON floats"], "V1 JSON integers": v1(model, pixels.tolist()),
            "OIP binary FP32": floats["OIP binary FP32"], "OIP binary UINT8": oip_binary(model, tensor)}


def named_formats(model):
    """One person of the census: several inputs, which only the Open Inference Protocol can name."""
    inputs = example("example-adult.json")["inputs"]
    types = {datatype: name for name, datatype in DATATYPES.items()}
    return {"OIP JSON": oip_json(model, inputs),
            "OIP binary": oip_binary(model, {entry["name"]: np.array(entry["data"], dtype=types[entry["datatype"]])
                                             .reshape(entry["shape"]) for entry in inputs})}


def formats(directory):
    """{name: (path, body, length of its JSON head or None)} for the model of that directory."""
    model = os.path.basename(directory)
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if "inputs" in config:
        return named_formats(model)
    entry = config["input"]
    if np.prod(entry["shape"]) == 784:
        return image_formats(model, entry)
    return float_formats(model, entry, np.random.default_rng(1).standard_normal(np.prod(entry["shape"])))


class Bodies:
    """The requests to a model, by format as formats() has them, and their bodies as files below `directory`."""

    def __init__(self, model_directory, directory):
        self.model_directory, self.model = model_directory, os.path.basename(model_directory)
        self.of = formats(model_directory)
        self.files = {}
        for index, (name, (_, body, _)) in enumerate(self.of.items()):
            self.files[name] = os.path.join(directory, f"{self.model}-{index}")
            with open(self.files[name], "wb") as file:
                file.write(body)


def post(url, body, head_length):
    """(answer, its head's length or None)"""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    if head_length is not None:
        request.add_header("Inference-Header-Content-Length", str(head_length))
    with urllib.request.urlopen(request) as reply:
        length = reply.headers.get("Inference-Header-Content-Length")
        return reply.read(), int(length) if length else None


def numbers_of(answer, head_length):
    """All outputs of an answer, one after the other."""
    if head_length is not None:
        return np.frombuffer(answer[head_length:], dtype="<f4")
    document = json.loads(answer)
    if "predictions" in document:
        return np.array(document["predictions"]).reshape(-1)
    return np.concatenate([output["data"] for output in document["outputs"]])
