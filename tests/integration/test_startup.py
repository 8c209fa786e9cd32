"""The command line: a refusal to start says why and what to do; questions that need no server are answered."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

import numpy as np

from support.http import HOST, Client
from support.models import Tiny, TwoLayers, write_checkpoint, write_elementwise
from support.server import BINARY, RUNNING_URL, SHIPPED_MODELS, Server, environment, run

FAILED, USAGE = 1, 2
OPTIONS = ["config", "models", "host", "port", "weights", "load", "cors-origin", "model-control", "model-poll-ms", "load-model",
           "strict-start", "loops", "threads", "max-batch-rows", "max-sequences", "step-tokens",
           "kv-cache-mb", "kv-cache", "max-queue-delay-us", "max-queue-rows",
           "queue-timeout-ms", "max-request-rows", "non-finite", "max-body-bytes", "max-total-body-bytes", "max-connections",
           "max-connections-per-ip", "request-timeout-ms", "idle-timeout-ms", "drain-delay-ms", "drain-timeout-ms",
           "max-expert-series", "max-tags", "log-level", "log-format", "log-slow-ms", "log-max-per-second", "admin",
           "trace-endpoint", "trace-rate", "grpc-port", "activations",
           "admin-listen", "rate-burst", "rate-limit", "sandbox", "tokens", "state",
           "state-interval-ms", "tls-cert", "tls-key", "tls-client-ca"]


@unittest.skipIf(RUNNING_URL, "about a server's start; MOED_SERVER_URL names one that has started")
class StartupCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="moed-startup-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def refuse(self, status, words, *arguments, env=None):
        """The command ends with this status and one message on standard error that contains all the words."""
        ended = run(*arguments, env=env)
        self.assertEqual(ended.returncode, status, ended.stderr)
        for word in words:
            self.assertIn(word, ended.stderr)
        fatal = status == FAILED and arguments[0] == "serve"
        self.assertRegex(ended.stderr, r"(?m)^time=\S+ level=error event=fatal message=" if fatal else r"(?m)^moed: ")
        self.assertNotIn("listening", ended.stderr)
        self.assertNotIn("event=draining", ended.stderr)

    def serve(self, **options):
        server = Server(**options)
        self.addCleanup(server.kill)
        return server


class ModelsTest(StartupCase):
    """What a strict start refuses."""

    def refuse_models(self, *words):
        self.refuse(FAILED, words, "serve", "--models", self.directory, "--port", "0", "--strict-start")

    def test_no_such_directory(self):
        self.refuse(FAILED, ["models: /no/such/place", "No such file"], "serve", "--models", "/no/such/place", "--port", "0")

    def test_empty_repository(self):
        self.refuse_models("no models", "config.json")

    def test_a_model_in_place_of_a_repository(self):
        model = os.path.join(SHIPPED_MODELS, "clusters")
        self.refuse(FAILED, [f"{model} is itself a model: expected the directory above it"], "serve", "--models", model, "--port", "0")

    def test_inspect_of_what_is_no_checkpoint(self):
        self.refuse(FAILED, [f"{self.directory} is neither a checkpoint nor a repository"], "inspect", self.directory)
        self.refuse(FAILED, ["/nowhere: cannot read the directory: No such file"], "inspect", "/nowhere")
        self.refuse(FAILED, [": cannot read the directory: Not a directory"], "inspect", self.write("file", "x"))

    def test_directory_without_a_checkpoint(self):
        os.makedirs(self.path("model"))
        self.refuse_models("no models", "NAME/config.json", "NAME/VERSION/config.json")

    def test_bad_name(self):
        Tiny().write(self.path("a model"))
        self.refuse_models("a model", "letters")

    def test_config_that_is_not_json(self):
        Tiny().write(self.path("tiny"))
        self.write("tiny/config.json", "{\n nonsense")
        self.refuse_models("tiny/config.json", "line 2")

    def test_unknown_key_and_op(self):
        tiny = Tiny()
        for change, words in (({"colour": 1}, ["colour"]), ({"layers": [{"op": "warp"}]}, ["layers[0]", "warp"]),
                              ({"format_version": 4}, ["format_version"]), ({"model_type": "gpt"}, ["gpt"])):
            with self.subTest(change):
                shutil.rmtree(self.path("tiny"), ignore_errors=True)
                config = {"input": {"name": "x", "shape": [4]}, "layers": [tiny.moe.layer()], "output": {"name": "y"}}
                write_checkpoint(self.path("tiny"), {**config, **change}, tiny.moe.tensors())
                self.refuse_models("tiny", *words)

    def test_truncated_and_missing_weights(self):
        Tiny().write(self.path("tiny"))
        weights = self.path("tiny", "model.safetensors")
        os.truncate(weights, os.path.getsize(weights) - 4)
        self.refuse_models("model.safetensors")
        os.remove(weights)
        self.refuse_models("model.safetensors")

    def test_shapes_that_do_not_fit(self):
        tensors = Tiny().moe.tensors()
        tensors["moe.experts.1.out.weight"] = np.ones((2, 5), np.float32)
        write_checkpoint(self.path("tiny"), {"input": {"name": "x", "shape": [4]}, "layers": [Tiny().moe.layer()],
                                             "output": {"name": "y"}}, tensors)
        self.refuse_models("moe.experts.1.out.weight")

    def test_one_bad_model_is_named_among_good_ones(self):
        Tiny().write(self.path("good"))
        Tiny().write(self.path("bad"))
        self.write("bad/config.json", "[]")
        self.refuse_models("bad")


class TolerantTest(StartupCase):
    """What any other start serves in spite of."""

    def index(self, client, ready=False):
        answer = client.post("/v2/repository/index", {"ready": ready})
        self.assertEqual(answer.status, 200, answer.body)
        return {(entry["name"], entry.get("version")): (entry["state"], entry["reason"]) for entry in answer.json}

    def test_one_bad_model_harms_no_other(self):
        Tiny().write(self.path("good"))
        Tiny().write(self.path("bad"))
        self.write("bad/config.json", "[]")
        for name in ("lost+found", "__pycache__", ".snapshots", "good/1", "empty/3"):
            os.makedirs(self.path(name))
        server = self.serve(models=self.directory, log_level="info")
        with Client(server.port) as client:
            index = self.index(client)
            self.assertEqual(index["good", "1"], ("READY", ""))
            self.assertEqual(index["bad", "1"][0], "UNAVAILABLE")
            self.assertIn("bad/config.json", index["bad", "1"][1])
            self.assertEqual(index["empty", None][0], "UNAVAILABLE")
            self.assertEqual(list(self.index(client, ready=True)), [("good", "1")])
            self.assertEqual(client.predict("good", [[1, 2, 3, 4]]).status, 200)
            answer = client.predict("bad", [[1, 2, 3, 4]])
            self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "1"))
            self.assertIn("cannot be served", answer.json["error"])
            self.assertEqual(client.get("/v2/models/good/ready").status, 200)
            for path in ("/v2/models/bad/ready", "/v2/models/bad/versions/1/ready", "/v1/models/bad"):
                answer = client.get(path)
                self.assertEqual(answer.status, 503, (path, answer.body))
                self.assertEqual((answer.json["name"], answer.json["ready"]), ("bad", False))
            self.assertEqual(client.get("/v2/models/worse/ready").status, 404)
            self.assertEqual(client.get("/v2/health/ready").json, {"ready": True, "unavailable": ["bad 1", "empty"]})
            page = client.get("/metrics").body.decode()
            self.assertIn('moed_model_state{model="bad",version="1",state="UNAVAILABLE"} 1', page)
            self.assertIn('moed_model_state{model="good",version="1",state="READY"} 1', page)
            self.assertIn('moed_model_load_failures_total{model="bad",version="1"} 1', page)
        log = server.log()
        self.assertRegex(log, "level=error event=model_failed message=.bad version 1: ")
        for name in ("lost[+]found", "__pycache__", "[.]snapshots", "empty/3"):
            self.assertRegex(log, f"level=info event=passed_over message=.*{name}")
        server.stop()

    def test_a_server_without_a_good_model_is_not_ready(self):
        Tiny().write(self.path("bad"))
        self.write("bad/config.json", "[]")
        server = self.serve(models=self.directory)
        with Client(server.port) as client:
            self.assertEqual(client.get("/v2/health/live").status, 200)
            answer = client.get("/v2/health/ready")
            self.assertEqual((answer.status, answer.json), (503, {"ready": False, "unavailable": ["bad 1"]}))
        server.stop()


class LoadingTest(StartupCase):
    """The port is bound before models are read. Here the first of two takes its time to warm up."""

    def start(self, **options):
        Tiny().write(self.path("z"))
        write_elementwise(self.path("a"), layers=12000)
        reader, writer = os.pipe()
        flags = [part for name, value in {"models": self.directory, "port": 0, **options}.items()
                 for part in ("--" + name, str(value))]
        process = subprocess.Popen([BINARY, "serve", *flags], env=environment(), stderr=writer)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(writer)
        log = os.fdopen(reader)
        self.addCleanup(log.close)
        for line in log:
            bound = re.search(r"event=bound .* port (\d+);", line)
            if bound:
                return process, log, int(bound[1])
        return self.fail("the port was not bound")

    def test_live_and_not_ready(self):
        process, log, port = self.start()
        with Client(port) as client:
            self.assertEqual(client.get("/v2/health/live").status, 200)
            while "loading" not in (answer := client.get("/v2/health/ready")).json:
                self.assertEqual((answer.status, answer.json), (503, {"ready": False}))  # not looked yet
            self.assertEqual((answer.status, answer.json), (503, {"ready": False, "loading": ["a 1", "z 1"]}))
            answer = client.predict("a", [[1]])
            self.assertEqual(answer.status, 503)
            self.assertIn("is being loaded", answer.json["error"])
            self.assertEqual(client.get("/v2/models/a/ready").status, 503)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        self.assertNotIn("listening on", log.read())

    def test_a_busy_port_is_told_before_models_are_read(self):
        process, _, port = self.start()
        self.refuse(FAILED, [str(port), "Address already in use"], "serve", "--models", self.directory, "--port",
                    str(port))
        self.refuse(FAILED, ["no.such.host.invalid"], "serve", "--models", self.directory, "--host",
                    "no.such.host.invalid")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)


class OptionsTest(StartupCase):
    def test_unknown_option_suggests_a_known_one(self):
        self.refuse(USAGE, ["--max-batch-row", "did you mean --max-batch-rows", "moed help serve"], "serve",
                    "--max-batch-row", "1")

    def test_twice(self):
        self.refuse(USAGE, ["--port is given a second time"], "serve", "--models", SHIPPED_MODELS, "--port", "0",
                    "--port=1")

    def test_models_is_required(self):
        self.refuse(USAGE, ["--models", "required"], "serve")

    def test_values(self):
        for option, value in (("port", "65536"), ("port", "x"), ("port", ""), ("threads", "-1"), ("max-batch-rows", "0"),
                              ("max-body-bytes", "1T"), ("log-level", "loud"), ("queue-timeout-ms", "1.5")):
            with self.subTest(f"{option} {value}"):
                self.refuse(USAGE, [f"--{option}", value or "nothing" if option == "log-level" else value], "serve",
                            "--models", SHIPPED_MODELS, f"--{option}", value)

    def test_check_config(self):
        config = self.write("moed.conf", "port = 1")
        ended = run("check-config", "--models", SHIPPED_MODELS, "--config", config)
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "moed: the options are right\n", ""))
        self.refuse(USAGE, ["moed.conf line 1", "prot"], "check-config", "--models", SHIPPED_MODELS, "--config",
                    self.write("moed.conf", "prot = 1"))
        self.refuse(USAGE, ["--models", "required"], "check-config")
        reason = "cannot read /nowhere: No such file or directory"
        self.refuse(USAGE, ["models: " + reason], "check-config", "--models", "/nowhere")
        self.refuse(USAGE, ["tokens: " + reason], "check-config", "--models", SHIPPED_MODELS, "--tokens", "/nowhere")

    def test_check_config_reads_what_serve_reads(self):
        wrong = self.write("wrong", "x")
        for options in (("--tokens", wrong), ("--tls-cert", wrong, "--tls-key", wrong)):
            with self.subTest(options):
                self.refuse(FAILED, [wrong], "serve", "--models", SHIPPED_MODELS, "--port", "0", *options)
                self.refuse(USAGE, [wrong], "check-config", "--models", SHIPPED_MODELS, *options)

    def test_tokens_that_others_may_write(self):
        tokens = self.write("tokens", "")
        for mode, warned in ((0o644, False), (0o660, True), (0o602, True)):
            with self.subTest(oct(mode)):
                os.chmod(tokens, mode)
                ended = run("check-config", "--models", SHIPPED_MODELS, "--tokens", tokens)
                self.assertEqual((ended.returncode, ended.stdout), (0, "moed: the options are right\n"))
                self.assertEqual(f"moed: warning: {tokens} can be written by its group or by all" in ended.stderr, warned, ended.stderr)
                ended = run("serve", "--models", "/nowhere", "--port", "0", "--tokens", tokens)
                self.assertEqual("event=open_tokens" in ended.stderr, warned, ended.stderr)

    def test_check_config_looks_at_the_state(self):
        for state in (self.directory, os.path.join(self.directory, "new")):
            self.assertEqual(run("check-config", "--models", SHIPPED_MODELS, "--state", state).returncode, 0)
        for state, reason in (("/nowhere/state", "cannot make /nowhere/state: No such file or directory"),
                              (config := self.write("moed.conf", ""), f"cannot write to {config}: Not a directory")):
            self.refuse(USAGE, ["state: " + reason], "check-config", "--models", SHIPPED_MODELS, "--state", state)
        self.assertFalse(os.path.exists(os.path.join(self.directory, "new")))

    def test_a_value_is_missing(self):
        self.refuse(USAGE, ["--port", "missing"], "serve", "--models", SHIPPED_MODELS, "--port")

    def test_environment(self):
        self.refuse(USAGE, ["MOED_PORT", "many"], "serve", "--models", SHIPPED_MODELS, env={"MOED_PORT": "many"})
        self.refuse(USAGE, ["MOED_PROT", "unknown option prot; did you mean port?"], "serve", "--models",
                    SHIPPED_MODELS, env={"MOED_PROT": "1"})

    def test_kernel(self):
        for command in ("serve", "--models"), ("inspect",):
            for name in ("AVX2", "avx1024", ""):
                with self.subTest(f"{command[0]} {name}"):
                    self.refuse(USAGE, ["MOED_KERNEL", "generic", f'"{name}"'], *command, SHIPPED_MODELS,
                                env={"MOED_KERNEL": name})

    def test_a_kernel_without_products_of_bf16_says_so(self):
        server = self.serve(activations="bf16", env={"MOED_KERNEL": "generic"})
        self.assertRegex(server.log(), "level=warning event=f32_activations .*kernel generic has no products of BF16")
        server.stop()

    def test_a_request_larger_than_the_queue(self):
        self.refuse(USAGE, ["max_request_rows (1024) exceeds max_queue_rows (4)"], "serve", "--models", SHIPPED_MODELS,
                    "--max-queue-rows", "4")

    def test_config_file(self):
        for text, words in (("max_batch_rows = many", ["line 1", "max_batch_rows", "many"]),
                            ("# fine\n\nmax_batch_row = 1", ["line 3", "did you mean max_batch_rows"]),
                            ("port = 1\nport = 2", ["line 2", "second time"]), ("nonsense", ["line 1", "key = value"])):
            with self.subTest(text):
                path = self.write("moed.conf", text)
                self.refuse(USAGE, [path, *words], "serve", "--models", SHIPPED_MODELS, "--config", path)
        self.refuse(USAGE, ["/no/such.conf"], "serve", "--models", SHIPPED_MODELS, "--config", "/no/such.conf")

    def test_flag_over_environment_over_file(self):
        Tiny().write(self.path("models", "tiny"))
        config = self.write("moed.conf", f'models = "{self.path("models")}"  # here\nmax_request_rows = 1\n'
                                         "max_queue_delay_us = 1\nport = 0\n")
        server = self.serve(models=None, port=None, config=config, env={"MOED_MAX_REQUEST_ROWS": "2",
                                                                        "MOED_MAX_QUEUE_DELAY_US": "2"},
                            max_request_rows=3)
        with Client(server.port) as client:
            document = client.get("/v2/models/tiny/config").json
        self.assertEqual(document["max_batch_size"], 3)
        self.assertEqual(document["dynamic_batching"]["max_queue_delay_microseconds"], 2)
        server.stop()


class ListeningTest(StartupCase):
    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refuse(FAILED, [str(port), "Address already in use"], "serve", "--models", SHIPPED_MODELS, "--port",
                        str(port))

    def test_address_of_another_machine(self):
        self.refuse(FAILED, ["192.0.2.1"], "serve", "--models", SHIPPED_MODELS, "--host", "192.0.2.1", "--port", "0")

    def test_more_connections_than_open_files(self):
        self.refuse(FAILED, ["ulimit"], "serve", "--models", SHIPPED_MODELS, "--port", "0", "--max-connections", "1000000")

    def test_ipv6(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("this machine has no IPv6")
        server = self.serve(host="::1")
        self.assertTrue(server.url.startswith("http://[::1]:"), server.url)
        server.stop()


class HelpTest(StartupCase):
    def test_commands(self):
        overview = run("help")
        self.assertEqual((overview.returncode, overview.stderr), (0, ""))
        for command in ("serve", "check-config", "inspect", "sample-config", "token", "help"):
            self.assertIn(f"moed {command}", overview.stdout)
            page = run("help", command)
            self.assertEqual((page.returncode, page.stderr), (0, ""))
            self.assertTrue(page.stdout.startswith(f"Usage: moed {command}"), page.stdout)
            self.assertEqual(run(command, "--help").stdout, page.stdout)

    def test_every_option_is_explained(self):
        page = run("help", "serve").stdout
        for option in OPTIONS:
            self.assertRegex(page, rf"(?m)^  --{option} [A-Za-z]")
        self.assertEqual(page.count("\n  --"), len(OPTIONS), "an option is missing in this test")
        self.assertLessEqual(max(map(len, page.splitlines())), 100)
        self.assertIn("--json", run("help", "inspect").stdout)

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"^moed \d+\.\d+\.\d+\n$")
        self.refuse(USAGE, ["--version", "unexpected argument 'extra'"], "--version", "extra")

    def test_without_or_with_an_unknown_command(self):
        for arguments in ((), ("sevre",)):
            ended = run(*arguments)
            self.assertEqual((ended.returncode, ended.stdout), (USAGE, ""))
            self.assertIn("moed serve", ended.stderr)
        self.assertEqual(run("help", "sevre").returncode, USAGE)

    def test_sample_config_is_the_shipped_one_and_works(self):
        sample = run("sample-config").stdout
        with open(os.path.join(SHIPPED_MODELS, "..", "moed.conf"), encoding="utf-8") as file:
            self.assertEqual(sample, file.read())
        config = self.write("moed.conf", sample)
        self.serve(config=config).stop()


class InspectTest(StartupCase):
    def test_text(self):
        ended = run("inspect", os.path.join(SHIPPED_MODELS, "fashion-mnist"))
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        for word in ("image [1, 28, 28]", "probabilities [10]", "5 experts, 2 serve a row", "conv2d", "Parameters", "Memory"):
            self.assertIn(word, ended.stdout)

    def test_repository(self):
        Tiny().write(self.path("tiny", "2"))
        Tiny().write(self.path("tiny", "10"))
        TwoLayers().write(self.path("two-layers"))
        os.makedirs(self.path("notes"))
        self.write("README", "not a model")
        expected = [self.path("tiny", "2"), self.path("tiny", "10"), self.path("two-layers")]
        ended = run("inspect", "--json", self.directory)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual([json.loads(line)["directory"] for line in ended.stdout.splitlines()], expected)
        text = run("inspect", self.directory).stdout
        self.assertEqual([line for line in text.splitlines() if line.startswith("/")], expected)
        self.write("tiny/2/config.json", "[]")
        ended = run("inspect", "--json", self.directory)
        self.assertEqual(ended.returncode, FAILED)
        self.assertEqual([json.loads(line)["directory"] for line in ended.stdout.splitlines()], expected[1:])
        self.assertRegex(ended.stderr, r"tiny/2/config\.json: .*\n.*: 1 of 3 checkpoints cannot be served\n")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            ended = subprocess.run([BINARY, "inspect", os.path.join(SHIPPED_MODELS, "clusters")], stdout=full,
                                   stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (FAILED, "moed: cannot write to standard output\n"))

    def test_json(self):
        TwoLayers().write(self.path("two-layers"))
        ended = run("inspect", "--json", self.path("two-layers"))
        document = json.loads(ended.stdout)
        self.assertEqual(document["inputs"], [{"name": "x", "shape": [6]}])
        self.assertEqual(document["outputs"], [{"name": "score", "shape": [3]}])
        moe = {layer["name"]: layer for layer in document["layers"] if layer["op"] == "moe"}
        self.assertEqual({name: (layer["experts"], layer["top_k"]) for name, layer in moe.items()},
                         {"first": (4, 1), "second": (5, 3)})
        first, second = (4 * 6, 4 * 6 * 8), (5 * 8, 5 * 8 * 3)
        self.assertEqual(document["parameters"], sum(first) + sum(second))
        self.assertEqual(document["active_parameters"], first[0] + first[1] // 4 + second[0] + second[1] * 3 // 5)

    def test_refusals(self):
        self.refuse(FAILED, ["/no/such"], "inspect", "/no/such")
        self.refuse(USAGE, ["expected the directory"], "inspect")
        self.refuse(USAGE, ["unexpected", "--yaml"], "inspect", "--yaml", SHIPPED_MODELS)


if __name__ == "__main__":
    unittest.main()
