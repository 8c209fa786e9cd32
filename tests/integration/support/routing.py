"""What tests of routing statistics need: models with several gates, a server, and how it adds up."""

import math
import os

import numpy as np

from support.models import LinearMoe, Tiny, TwoLayers, write_checkpoint
from support.server import ServerCase

WINDOWS = ("1m", "5m", "1h", "all")


class Referred(Tiny):
    """A model that knows how good data was routed, and one gate that uses every expert."""

    share, weight, rows = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], 400

    def write(self, directory):
        dense = LinearMoe("dense", self.inputs, self.inputs, experts=3, top_k=3, seed=40)
        reference = {"dense": {"share": [1, 1, 1], "weight": self.weight, "rows": self.rows},
                     "moe": {"share": self.share, "rows": self.rows}}
        write_checkpoint(directory, {"input": {"name": "x", "shape": [self.inputs]},
                                     "layers": [dense.layer(), self.moe.layer()], "output": {"name": "y"},
                                     "routing_reference": reference}, {**dense.tensors(), **self.moe.tensors()})


class RoutingCase(ServerCase):
    options = {"admin": "true"}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny", "2"))
        Tiny(seed=2).write(os.path.join(directory, "tiny", "10"))
        TwoLayers().write(os.path.join(directory, "two-layers"))
        Referred().write(os.path.join(directory, "referred"))

    def setUp(self):
        self.server = self.start()
        self.addCleanup(self.server.stop)
        self.client = self.new_client()

    def get(self, path):
        answer = self.client.get(path)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def routed(self, rows):
        """Sends the rows and returns what each gate did with them: (experts [n, k], weights [n, k]) by name."""
        experts, weights = {}, {}
        for part in np.split(rows, [1, 30]):
            request = {"inputs": [{"name": "x", "shape": list(part.shape), "datatype": "FP32",
                                   "data": part.ravel().tolist()}],
                       "outputs": [{"name": f"routing.{layer}.{what}"} for layer in ("first", "second")
                                   for what in ("experts", "weights")]}
            answer = self.client.infer("two-layers", request)
            self.assertEqual(answer.status, 200, answer.body)
            for output in answer.json["outputs"]:
                _, layer, what = output["name"].split(".")
                into, kind = (experts, np.int64) if what == "experts" else (weights, np.float32)
                into.setdefault(layer, []).append(np.array(output["data"], kind).reshape(output["shape"]))
        return {layer: (np.concatenate(experts[layer]), np.concatenate(weights[layer])) for layer in experts}


def entropy(shares):
    return -sum(share * math.log2(share) for share in shares if share > 0)


def in_units(values):
    """The sum of each column as the server keeps it: every number rounded to 2^-32."""
    return np.rint(values.astype(np.float64) * 2 ** 32).sum(axis=0) / 2 ** 32
