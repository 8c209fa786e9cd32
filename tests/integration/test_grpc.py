"""tritonclient over gRPC, unmodified, as a client; skipped where it is not installed (tests/run.sh installs it)."""

import os
import resource
import shutil
import subprocess
import threading
import unittest

import numpy as np

from support.models import Tiny, TwoLayers, write_slow
from support.prometheus import Metrics
from support.server import ServerCase, run

try:
    import grpc
    import tritonclient.grpc as triton
    from tritonclient.grpc import service_pb2, service_pb2_grpc
    from tritonclient.utils import InferenceServerException
except ImportError:
    grpc = None

ROWS = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)


@unittest.skipUnless(grpc, "the package tritonclient[grpc] is not installed")
class GrpcCase(ServerCase):
    options = {"threads": 2, "grpc_port": 0, "log_level": "info"}

    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))
        write_slow(os.path.join(directory, "slow"), seconds=0.05)

    def setUp(self):
        self.triton = self.connect(self.server)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}")
        self.addCleanup(self.channel.close)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def connect(self, server):
        client = triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        self.addCleanup(client.close)
        return client

    @staticmethod
    def tensor(rows=ROWS, name="x", datatype="FP32"):
        tensor = triton.InferInput(name, list(rows.shape), datatype)
        tensor.set_data_from_numpy(rows)
        return tensor

    @staticmethod
    def request(rows=ROWS, model="tiny", datatype="FP32", **contents):
        request = service_pb2.ModelInferRequest(model_name=model)
        tensor = request.inputs.add(name="x", datatype=datatype, shape=list(rows.shape))
        if not contents:
            request.raw_input_contents.append(rows.tobytes())
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
        return request

    def assert_refused(self, code, words, call, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(words, caught.exception.details())
        return caught.exception


class ClientTest(GrpcCase):
    def test_health_and_metadata(self):
        self.assertTrue(self.triton.is_server_live() and self.triton.is_server_ready())
        self.assertTrue(self.triton.is_model_ready("tiny") and self.triton.is_model_ready("tiny", "1"))
        self.assertFalse(self.triton.is_model_ready("none") or self.triton.is_model_ready("tiny", "2"))
        http, metadata = self.client.get("/v2").json, self.triton.get_server_metadata(as_json=True)
        self.assertEqual((metadata["name"], metadata["version"]), (http["name"], http["version"]))
        self.assertEqual(sorted({*http["extensions"]} - {*metadata["extensions"]}), ["logging", "trace"])
        over_http = self.client.get("/v2/models/two-layers").json
        metadata = self.triton.get_model_metadata("two-layers")
        self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), ("two-layers", ["1"], "moed"))
        for ours, theirs in zip(metadata.outputs, over_http["outputs"], strict=True):
            self.assertEqual((ours.name, ours.datatype, list(ours.shape)),
                             (theirs["name"], theirs["datatype"], theirs["shape"]))
        config = self.triton.get_model_config("tiny").config
        self.assertEqual((config.name, config.backend, config.max_batch_size), ("tiny", "moed", 1024))
        self.assertEqual((config.input[0].data_type, list(config.input[0].dims)), (11, [4]))
        index = self.triton.get_model_repository_index().models
        self.assertEqual([(m.name, m.version, m.state) for m in index],
                         [(m["name"], m["version"], m["state"]) for m in self.client.post("/v2/repository/index", b"").json])

    def test_answers_are_those_of_http_bit_for_bit(self):
        answer = self.triton.infer("tiny", [self.tensor()], request_id="seven")
        self.assertEqual((answer.get_response().id, answer.get_response().model_version), ("seven", "1"))
        head = (b'{"inputs":[{"name":"x","shape":[7,4],"datatype":"FP32","parameters":{"binary_data_size":112}}],'
                b'"parameters":{"binary_data_output":true}}')
        over_http = self.client.post("/v2/models/tiny/infer", head + ROWS.tobytes(),
                                     {"Inference-Header-Content-Length": str(len(head))})
        self.assertTrue(over_http.body.endswith(answer.get_response().raw_output_contents[0]))
        typed = self.stub.ModelInfer(self.request(fp32_contents=ROWS.ravel().tolist()))
        self.assertEqual(typed.raw_output_contents[0], answer.get_response().raw_output_contents[0])
        np.testing.assert_allclose(answer.as_numpy("y"), Tiny().moe.forward(ROWS)[0], rtol=1e-4, atol=1e-5)

    def test_datatypes(self):
        whole = np.round(ROWS * 3).astype(np.int8)
        expected = self.stub.ModelInfer(self.request(whole.astype(np.float32))).raw_output_contents[0]
        for field, datatype, dtype in (("int_contents", "INT8", np.int8), ("int64_contents", "INT64", np.int64),
                                       ("fp64_contents", "FP64", np.float64)):
            values = whole.astype(dtype)
            raw = self.stub.ModelInfer(self.request(values, datatype=datatype))
            typed = self.stub.ModelInfer(self.request(values, datatype=datatype, **{field: values.ravel().tolist()}))
            self.assertEqual((raw.raw_output_contents[0], typed.raw_output_contents[0]), (expected, expected), datatype)

    def test_nan_is_refused(self):
        self.assert_refused(grpc.StatusCode.INVALID_ARGUMENT, "is not a finite number", self.stub.ModelInfer,
                            self.request(np.full((1, 4), np.nan, np.float32)))

    def test_routing_classes_and_what_if(self):
        rows = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
        asked = [triton.InferRequestedOutput("score", class_count=1), triton.InferRequestedOutput("routing.first.experts")]
        answer = self.triton.infer("two-layers", [self.tensor(rows)], outputs=asked)
        self.assertRegex(answer.as_numpy("score")[0][0].decode(), r"^-?[0-9.e-]+:\d:(red|green|blue)$")
        np.testing.assert_array_equal(answer.as_numpy("routing.first.experts"), TwoLayers().forward(rows)[1][1])
        without = self.triton.infer("two-layers", [self.tensor(rows)], outputs=asked[1:],
                                    parameters={"experts": '{"first":{"exclude":[0,1,2]}}', "tag": "canary"})
        self.assertEqual(without.as_numpy("routing.first.experts").ravel().tolist(), [3, 3, 3])
        self.assertIn("exclude", without.get_response().parameters["experts"].string_param)

    def test_what_perf_analyzer_and_kserve_always_send(self):
        request = self.request()
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        request.inputs[0].parameters["binary_data_size"].int64_param = 4 * ROWS.size
        self.assertEqual(len(self.stub.ModelInfer(request).outputs), 1)

    def test_errors_have_codes_and_the_messages_of_http(self):
        code = grpc.StatusCode
        over_http = self.client.get("/v2/models/none").json["error"]
        self.assert_refused(code.NOT_FOUND, over_http, self.stub.ModelMetadata,
                            service_pb2.ModelMetadataRequest(name="none"))
        self.assert_refused(code.NOT_FOUND, "has no version '9'", self.stub.ModelInfer,
                            service_pb2.ModelInferRequest(model_name="tiny", model_version="9"))
        self.assert_refused(code.INVALID_ARGUMENT, "names no model", self.stub.ModelMetadata,
                            service_pb2.ModelMetadataRequest())
        self.assert_refused(code.INVALID_ARGUMENT, "input 'x': shape is [7,3], expected [rows,4]", self.stub.ModelInfer,
                            self.request(ROWS[:, :3]))
        request = self.request()
        request.parameters["priority"].string_param = "high"
        self.assert_refused(code.INVALID_ARGUMENT, "priority", self.stub.ModelInfer, request)
        self.assert_refused(code.RESOURCE_EXHAUSTED, "the limit is 1024", self.stub.ModelInfer,
                            self.request(np.zeros((1025, 4), np.float32)))
        self.assert_refused(code.INVALID_ARGUMENT, "unknown input 'z': model 'tiny' has 'x'", self.stub.ModelInfer,
                            service_pb2.ModelInferRequest(model_name="tiny", raw_input_contents=[b""],
                                                          inputs=[{"name": "z", "datatype": "FP32", "shape": [1, 4]}]))
        self.assert_refused(code.UNIMPLEMENTED, "no such method: /inference.GRPCInferenceService/LogSettings",
                            self.stub.LogSettings, service_pb2.LogSettingsRequest())
        self.assert_refused(code.UNIMPLEMENTED, "compressed", self.stub.ServerLive, service_pb2.ServerLiveRequest(),
                            compression=grpc.Compression.Gzip, metadata=[("padding", "x")])
        self.assert_refused(code.PERMISSION_DENIED, "--admin", self.stub.RepositoryModelLoad,
                            service_pb2.RepositoryModelLoadRequest(model_name="tiny"))
        self.assert_refused(code.INVALID_ARGUMENT, "Größe", self.stub.ModelInfer, service_pb2.ModelInferRequest(
            model_name="tiny", raw_input_contents=[b""], inputs=[{"name": "Größe", "datatype": "FP32", "shape": [1]}]))

    def test_standard_health(self):
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assertEqual(check(b""), b"\x08\x01")
        self.assertEqual(check(b"\n\x1einference.GRPCInferenceService"), b"\x08\x01")
        self.assert_refused(grpc.StatusCode.NOT_FOUND, "no such service: other", check, b"\n\x05other")

    def test_deadlines(self):
        slow = self.request(np.zeros((1, 4), np.float32), model="slow")
        many = self.request(np.zeros((6, 4), np.float32), model="slow")
        calls = [self.stub.ModelInfer.future(many) for _ in range(4)]  # a second or more, so that the next ones wait
        self.assert_refused(grpc.StatusCode.DEADLINE_EXCEEDED, "", self.stub.ModelInfer, slow, timeout=0.02)
        self.assert_refused(grpc.StatusCode.DEADLINE_EXCEEDED, "the request was not computed within 1 ms",
                            self.stub.ModelInfer, self.with_timeout(slow, 1000))
        self.assertEqual([len(call.result().raw_output_contents) for call in calls], [1] * 4)

    @staticmethod
    def with_timeout(request, microseconds):
        copy = service_pb2.ModelInferRequest()
        copy.CopyFrom(request)
        copy.parameters["timeout"].int64_param = microseconds
        return copy

    def test_requests_are_counted_logged_and_named(self):
        def counted():
            metrics = Metrics(self.client.get("/metrics").body.decode())
            return metrics.sum("moed_requests_total", protocol="grpc", model="tiny")
        before = counted()
        answer, call = self.stub.ModelInfer.with_call(self.request(), metadata=[("x-request-id", "mine-1")])
        self.assertEqual(dict(call.initial_metadata())["x-request-id"], "mine-1")
        self.assertEqual(len(answer.outputs), 1)
        self.assertEqual(counted(), before + 1)
        line = next(line for line in self.server.log().splitlines() if "id=mine-1" in line)
        for part in ("path=/inference.GRPCInferenceService/ModelInfer", "status=200", "model=tiny", "rows=7", "client=127.0.0.1"):
            self.assertIn(part, line)
        statistics = self.triton.get_inference_statistics("tiny").model_stats[0]
        self.assertGreaterEqual(statistics.inference_stats.success.count, 1)
        self.assertGreaterEqual(len(self.triton.get_inference_statistics().model_stats), 3)

    def test_many_calls_at_once(self):
        rows = [np.full((1, 4), i, np.float32) for i in range(200)]
        calls = [self.stub.ModelInfer.future(self.request(row)) for row in rows]
        alone = [self.stub.ModelInfer(self.request(row)).raw_output_contents[0] for row in rows[:5]]
        answers = [call.result().raw_output_contents[0] for call in calls]
        self.assertEqual(answers[:5], alone)
        self.assertEqual(len(set(answers)), 200)

    def test_large_messages(self):
        rows = np.tile(ROWS, (147, 1))[:1024]
        parameters = "x" * 100000
        request = self.request(rows)
        request.parameters["note"].string_param = parameters
        self.assertEqual(len(self.stub.ModelInfer(request).raw_output_contents[0]), 1024 * 2 * 4)
        request.parameters["note"].string_param = 3 * parameters
        self.assert_refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "beside its tensors", self.stub.ModelInfer, request)


class LimitsTest(GrpcCase):
    options = {**GrpcCase.options, "max_body_bytes": 4096, "model_control": "explicit", "load_model": "tiny",
               "admin": "true", "loops": 2, "non_finite": "accept"}

    def test_repository(self):
        self.assertFalse(self.triton.is_model_ready("two-layers"))
        self.triton.load_model("two-layers")
        self.assertTrue(self.triton.is_model_ready("two-layers"))
        self.triton.unload_model("two-layers")
        self.assertFalse(self.triton.is_model_ready("two-layers"))
        with self.assertRaises(InferenceServerException) as caught:
            self.triton.load_model("two-layers", config="{}")
        self.assertIn("parameter 'config' is not supported", str(caught.exception))
        with self.assertRaises(InferenceServerException) as caught:
            self.triton.load_model("none")
        self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")
        server = self.server.process.pid
        limits = resource.prlimit(server, resource.RLIMIT_NOFILE)
        resource.prlimit(server, resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with self.assertRaises(InferenceServerException) as caught:
                self.triton.load_model("two-layers")
        finally:
            resource.prlimit(server, resource.RLIMIT_NOFILE, limits)
        self.assertEqual(caught.exception.status(), "StatusCode.UNAVAILABLE")

    def test_messages_are_bounded(self):
        error = self.assert_refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "bytes, the limit is 4096", self.stub.ModelInfer,
                                    self.request(np.zeros((1000, 4), np.float32)))
        self.assertNotIn("grpc-retry-pushback-ms", dict(error.trailing_metadata()))
        self.assertEqual(len(self.stub.ModelInfer(self.request()).outputs), 1)

    def test_nan_where_it_is_accepted(self):
        rows = ROWS.copy()
        rows[0] = np.nan, np.inf, -np.inf, 1
        answer = self.triton.infer("tiny", [self.tensor(rows)]).as_numpy("y")
        self.assertTrue(np.isnan(answer[0]).any())
        np.testing.assert_array_equal(answer[1:], self.triton.infer("tiny", [self.tensor()]).as_numpy("y")[1:])

    def test_loops_share_the_port(self):
        for _ in range(8):
            client = self.connect(self.server)
            np.testing.assert_array_equal(client.infer("tiny", [self.tensor()]).as_numpy("y"),
                                          self.triton.infer("tiny", [self.tensor()]).as_numpy("y"))


class TokenTest(GrpcCase):
    @classmethod
    def start(cls, **options):
        path = os.path.join(cls._directory.name, ".tokens")
        made = {role: run("token", "--role", role, "--name", role).stdout.split("\n") for role in ("predict", "admin")}
        cls.tokens = {role: next(line for line in lines if line.startswith("moed_")) for role, lines in made.items()}
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(next(line for line in lines if role in line and not line.startswith("moed_")) + "\n"
                               for role, lines in made.items()))
        return super().start(tokens=path, **options)

    def test_tokens_and_roles(self):
        code = grpc.StatusCode
        self.assertTrue(self.triton.is_server_live())
        self.assert_refused(code.UNAUTHENTICATED, "this takes a token", self.stub.ModelInfer, self.request())
        self.assert_refused(code.UNAUTHENTICATED, "is not known", self.stub.ModelInfer, self.request(),
                            metadata=[("authorization", "Bearer moed_wrong")])
        own = [("authorization", f"Bearer {self.tokens['predict']}")]
        self.assertEqual(len(self.stub.ModelInfer(self.request(), metadata=own).outputs), 1)
        self.assert_refused(code.PERMISSION_DENIED, "a token with the role admin", self.stub.RepositoryModelLoad,
                            service_pb2.RepositoryModelLoadRequest(model_name="tiny"), metadata=own)
        self.assertNotIn(self.tokens["predict"], self.server.log())


@unittest.skipUnless(shutil.which("openssl"), "openssl is missing")
class TlsTest(GrpcCase):
    @classmethod
    def start(cls, **options):
        cls.pem, key = (os.path.join(cls._directory.name, name) for name in (".pem", ".key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", key, "-out", cls.pem, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, capture_output=True, timeout=60)
        return super().start(tls_cert=cls.pem, tls_key=key, **options)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client.close()  # of plain HTTP

    def test_calls_inside_of_tls(self):
        with open(self.pem, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        with grpc.secure_channel(f"localhost:{self.server.grpc_port}", credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            rows = np.tile(ROWS, (147, 1))[:1024]
            answers = [call.result() for call in [stub.ModelInfer.future(self.request(rows)) for _ in range(2)]]
            self.assertEqual({len(answer.raw_output_contents[0]) for answer in answers}, {1024 * 2 * 4})


class DrainTest(GrpcCase):
    def test_calls_are_finished(self):
        server = self.start(drain_timeout_ms=60000)
        self.addCleanup(server.kill)
        slow = self.request(np.zeros((1, 4), np.float32), model="slow")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            stub.ServerLive(service_pb2.ServerLiveRequest())
            calls = [stub.ModelInfer.future(slow) for _ in range(3)]
            threading.Event().wait(0.1)
            server.signal()
            self.assertEqual([len(call.result().outputs) for call in calls], [1] * 3)
            server.assert_clean(server.wait())
        self.assertIn("every accepted request was answered", server.log())


if __name__ == "__main__":
    unittest.main()
