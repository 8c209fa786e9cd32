"""Documents about the server and its models: health, metadata, configuration, lists."""

import json
import os
import re
import unittest

from support.models import Tiny, TwoLayers
from support.server import ServerCase


class DocumentsCase(ServerCase):
    options = {"max_request_rows": 100, "max_queue_delay_us": 0}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny", "2"))
        Tiny(seed=2).write(os.path.join(directory, "tiny", "10"))
        TwoLayers().write(os.path.join(directory, "two-layers"))
        os.makedirs(os.path.join(directory, ".hidden"))

    def get(self, path):
        answer = self.client.get(path)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.json


class HealthTest(DocumentsCase):
    def test_server(self):
        self.assertEqual(self.get("/v2/health/live"), {"live": True})
        self.assertEqual(self.get("/v2/health/ready"), {"ready": True})

    def test_model(self):
        for path in ("/v2/models/tiny/ready", "/v2/models/tiny/versions/2/ready"):
            with self.subTest(path):
                self.assertLessEqual({"name": "tiny", "ready": True}.items(), self.get(path).items())

    def test_model_for_both_kinds_of_v1_clients(self):
        def status(version):
            return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}

        whole = self.get("/v1/models/tiny")
        self.assertEqual((whole["name"], whole["ready"]), ("tiny", True))
        self.assertIn(status("2"), whole["model_version_status"])
        self.assertEqual(self.get("/v1/models/tiny/versions/2")["model_version_status"], [status("2")])

    def test_head_is_get_without_a_body(self):
        full, head = self.client.get("/v2/health/ready"), self.client.request("HEAD", "/v2/health/ready")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], full.headers["content-length"])


class OpenApiTest(DocumentsCase):
    options = {**DocumentsCase.options, "admin": "true"}

    def test_it_describes_what_is_there(self):
        document = self.get("/openapi.json")
        self.assertEqual(document["openapi"], "3.1.0")
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        self.assertEqual(len({operation["operationId"] for operation in operations}), len(operations))
        for path, methods in document["paths"].items():
            names = {name for name in "mv" if "{%s}" % name in path}
            for method, operation in methods.items():
                with self.subTest(f"{method} {path}"):
                    self.assertEqual({parameter["name"] for parameter in operation["parameters"]}, names)
                    self.assertTrue(operation["summary"])
                    self.assertLessEqual({"200", "400", "503"}, set(operation["responses"]))
                    if "live" in path or "ui" in path:
                        continue  # has no end; is not of a model
                    asked = path.replace("{m}", "tiny").replace("{v}", "2")
                    answer = self.client.request(method.upper(), asked)
                    self.assertNotIn(answer.status, (404, 405))
                    self.assertLess(answer.status, 500)
                    declared = operation["responses"][str(answer.status)]
                    if "$ref" in declared:
                        declared = document["components"]["responses"][declared["$ref"].rsplit("/", 1)[1]]
                    self.assertIn(answer.headers["content-type"].split(";")[0], declared["content"])
        self.assertIn("/v1/models/{m}:predict", document["paths"])
        self.assertEqual(set(document["paths"]["/v2/logging"]), {"get", "post"})

    def test_bodies_are_described(self):
        document = self.get("/openapi.json")
        schemas = document["components"]["schemas"]
        for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
            self.assertIn(name, schemas)
        v1 = schemas["PredictRequest"]["properties"]
        self.assertIn("priority", v1)
        self.assertIn("probabilities", v1["routing"]["oneOf"][1]["properties"])
        self.assertIn("priority", schemas["InferRequest"]["properties"]["parameters"]["properties"])
        for path, methods in document["paths"].items():
            for method in {"post", "delete"} & set(methods):
                if "requestBody" in methods[method]:
                    self.assertIn("schema", methods[method]["requestBody"]["content"]["application/json"], path)


class CorsTest(DocumentsCase):
    options = {**DocumentsCase.options, "cors_origin": "https://a.example,https://b.example:8443"}

    def test_pages_of_allowed_origins(self):
        for origin in ("https://a.example", "https://b.example:8443"):
            answer = self.client.get("/v2", {"Origin": origin})
            self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (200, origin))
            self.assertEqual(answer.headers["vary"], "Origin")
            self.assertEqual(self.client.get("/nowhere", {"Origin": origin}).headers["access-control-allow-origin"],
                             origin)

    def test_pages_of_others(self):
        for headers in ({}, {"Origin": "https://a.exampl"}, {"Origin": "null"}, {"Origin": "https://a.example,"}):
            answer = self.client.get("/v2", headers)
            self.assertEqual(answer.status, 200)
            self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_preflight(self):
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        answer = self.client.request("OPTIONS", "/v2/models/tiny/infer", b"", asked)
        self.assertEqual((answer.status, answer.headers["access-control-allow-methods"]), (204, "GET, HEAD, POST, DELETE"))
        self.assertEqual(self.client.request("OPTIONS", "/v2", b"", {**asked, "Origin": "https://c"}).status, 405)
        self.assertEqual(self.client.request("OPTIONS", "/v2").status, 405)


class StatisticsTest(DocumentsCase):
    """The statistics extension, with every key that Triton has."""

    DURATIONS = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
                 "cache_miss"]

    def test_every_key(self):
        for rows in (1, 1, 3):
            self.assertEqual(self.client.predict("two-layers", [[0] * 6] * rows).status, 200)
        self.assertEqual(self.client.predict("two-layers", [[0]]).status, 400)
        (model,) = self.get("/v2/models/two-layers/stats")["model_stats"]
        self.assertEqual(list(model), ["name", "version", "last_inference", "inference_count", "execution_count",
                                       "nonfinite_count", "inference_stats", "response_stats", "batch_stats", "memory_usage"])
        self.assertEqual((model["name"], model["version"]), ("two-layers", "1"))
        self.assertEqual((model["inference_count"], model["execution_count"]), (5, 3))
        self.assertGreater(model["last_inference"], 1.6e12)
        times = model["inference_stats"]
        self.assertEqual(list(times), self.DURATIONS)
        self.assertEqual({key: times[key]["count"] for key in self.DURATIONS},
                         {"success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3,
                          "compute_output": 3, "cache_hit": 0, "cache_miss": 0})
        parts = sum(times[key]["ns"] for key in ("queue", "compute_input", "compute_infer", "compute_output"))
        self.assertTrue(0 < parts <= times["success"]["ns"], times)
        self.assertEqual([(batch["batch_size"], batch["compute_infer"]["count"]) for batch in model["batch_stats"]],
                         [(1, 2), (3, 1)])
        self.assertGreater(model["memory_usage"][0]["byte_size"], 0)

    def test_of_whom(self):
        def named(path):
            return [(model["name"], model["version"]) for model in self.get(path)["model_stats"]]
        self.assertEqual(named("/v2/models/stats"), [("tiny", "2"), ("tiny", "10"), ("two-layers", "1")])
        self.assertEqual(named("/v2/models/tiny/stats"), [("tiny", "2"), ("tiny", "10")])
        self.assertEqual(named("/v2/models/tiny/versions/2/stats"), [("tiny", "2")])
        self.assertEqual(self.client.get("/v2/models/nobody/stats").status, 404)


class MetadataTest(DocumentsCase):
    def test_server(self):
        document = self.get("/v2")
        self.assertEqual(document["name"], "moed")
        self.assertRegex(document["version"], r"^\d+\.\d+\.\d+$")
        self.assertIn("binary_tensor_data", document["extensions"])

    def test_model(self):
        self.assertEqual(self.get("/v2/models/tiny"), {
            "name": "tiny", "versions": ["2", "10"], "platform": "moed",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]},
                        {"name": "routing.moe.experts", "datatype": "INT32", "shape": [-1, 2]},
                        {"name": "routing.moe.weights", "datatype": "FP32", "shape": [-1, 2]}]})

    def test_one_version(self):
        self.assertEqual(self.get("/v2/models/tiny/versions/2")["versions"], ["2"])

    def test_config(self):
        """Load generators read this before they start."""
        config = self.get("/v2/models/tiny/config")
        self.assertEqual(config["name"], "tiny")
        self.assertEqual(config["max_batch_size"], 100)
        self.assertEqual(config["input"], [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}])
        self.assertEqual(config["output"][0], {"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
        self.assertEqual(config["dynamic_batching"], {"max_queue_delay_microseconds": 0})
        self.assertEqual(config["model_transaction_policy"], {"decoupled": False})
        self.assertEqual(config["instance_group"][0]["kind"], "KIND_CPU")

    def test_list(self):
        self.assertEqual(self.get("/v1/models")["models"], ["tiny", "two-layers"])


if __name__ == "__main__":
    unittest.main()
