"""Runs the clients that tests/clients/run.sh has installed against one server, and prints a table in Markdown.

    python3 tests/clients/main.py [CLIENT...]

A program of tests/clients/programs does what a user of the client would, checks the answers, and prints "VERSION|WHAT IT DID".
Each has five minutes. A client that is not installed is skipped.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from support.server import Server  # noqa: E402

HOME = os.path.join(ROOT, "build", "clients")
PROGRAMS = os.path.join(HERE, "programs")
SECONDS = 300
MODEL = "fashion-mnist"


class Missing(Exception):
    """The client is not on this machine."""


def run(*command, env=None, cwd=None):
    """What the command printed; RuntimeError with the end of it if it failed."""
    if not shutil.which(command[0]):
        raise Missing(f"no {os.path.basename(command[0])}")
    done = subprocess.run(command, env={**os.environ, **(env or {})}, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)[:200]}: status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


class Clients:
    def __init__(self, server, directory):
        self.http, self.grpc = server.url, f"127.0.0.1:{server.grpc_port}"
        self.directory = directory
        self.expected = os.path.join(directory, "expected.json")

    def program(self, *command, **env):
        """A program's version, and what it did."""
        output = run(*command, env={"MOED_HTTP": self.http, "MOED_GRPC": self.grpc, "MOED_EXPECTED": self.expected, **env})
        return next(line.split("|") for line in reversed(output.splitlines()) if "|" in line)

    def python(self, client, program):
        return self.program(os.path.join(HOME, client, "bin", "python"), os.path.join(PROGRAMS, program))

    # Each of these is a client: returns its version and what it did.

    def curl(self):
        answer = json.loads(run("curl", "-sS", "--fail", "--compressed", f"{self.http}/v1/models/{MODEL}:predict", "-d",
                                f"@{os.path.join(ROOT, 'deploy', 'example.json')}"))
        with open(os.path.join(ROOT, "deploy", "example.json"), encoding="utf-8") as file:
            image = json.load(file)["instances"][0]
        while isinstance(image[0], list):
            image = [value for part in image for value in part]
        (expected,) = answer["predictions"]
        assert max(range(10), key=expected.__getitem__) == 9, answer
        with open(self.expected, "w", encoding="utf-8") as file:
            json.dump({"image": image, "expected": expected}, file)
        version = run("curl", "--version").split()[1]
        return version, "the README's prediction: V1 with routing; what it got is what the others are compared with"

    def kserve(self):
        return self.python("kserve", "kserve_sdk.py")

    def tritonclient(self):
        return self.python("tritonclient", "triton.py")

    def perf_analyzer(self):
        home = os.path.join(HOME, "perf_analyzer")
        program = os.path.join(home, "perf_analyzer")
        library = {"LD_LIBRARY_PATH": os.path.join(home, "lib")}
        for protocol, address in (("http", self.http.removeprefix("http://")), ("grpc", self.grpc)):
            for options in ([], ["-a"]):
                output = run(program, "-m", MODEL, "-i", protocol, "-u", address, "--concurrency-range", "2", "-p", "500",
                             "-r", "5", "-s", "999", *options, env=library)
                assert re.search(r"throughput: [1-9]", output), output
                assert re.search(r"Successful request count: [1-9]", output), output
        return "2.47.0", "measured over HTTP and gRPC, synchronous and asynchronous, and read the server's statistics"

    def mlserver(self):
        with open(self.expected, encoding="utf-8") as file:
            image, expected = json.load(file).values()
        requests, answers = (os.path.join(self.directory, name) for name in ("requests.jsonl", "answers.jsonl"))
        line = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": image}]})
        with open(requests, "w", encoding="utf-8") as file:
            file.write((line + "\n") * 6)
        for options in (["-s", "4", "-w", "2"], ["-b"]):
            run(os.path.join(HOME, "mlserver", "bin", "mlserver"), "infer", "-u", self.http.removeprefix("http://"), "-m", MODEL,
                "-i", requests, "-o", answers, *options)
            with open(answers, encoding="utf-8") as file:
                outputs = [json.loads(line)["outputs"][0]["data"] for line in file]
            assert len(outputs) == 6, outputs
            assert all(abs(a - b) < 1e-6 for output in outputs for a, b in zip(output, expected, strict=True)), outputs
        version = run(os.path.join(HOME, "mlserver", "bin", "mlserver"), "--version").split()[-1]
        return version, "`mlserver infer` of six requests, in micro-batches of four with two workers, and with binary tensors"

    def openai_python(self):
        python = os.path.join(HOME, "openai-python", "bin", "python")
        if not shutil.which(python):
            raise Missing("no openai-python")
        output = run(python, "-m", "unittest", "test_openai_client", cwd=os.path.join(ROOT, "tests", "integration"))
        version = run(python, "-c", "import openai; print(openai.__version__)").strip()
        count = re.search(r"Ran (\d+) tests", output)[1]
        return version, f"synchronous and asynchronous, streams, aborts, embeddings: the {count} tests of test_openai_client.py"

    def openai_js(self):
        return self.program("node", os.path.join(PROGRAMS, "openai_js.mjs"),
                            MOED_NODE_MODULES=os.path.join(HOME, "openai-js", "node_modules"))

    def prometheus_client(self):
        return self.python("prometheus-client", "prometheus.py")

    def promtool(self):
        page = run("curl", "-sS", "--fail", f"{self.http}/metrics")
        if not shutil.which("promtool"):
            raise Missing("no promtool")
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=SECONDS,
                              check=False)
        assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: remarks on names
        remarks = len(done.stderr.strip().splitlines())
        text = subprocess.run(["promtool", "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
        return re.search(r"version ([^ +]+)", text.stdout + text.stderr)[1], f"read /metrics; remarks on {remarks} names, none on the format"

    def go(self):
        return self.program("go", "run", os.path.join(PROGRAMS, "http.go"))

    def java(self):
        return self.program("java", os.path.join(PROGRAMS, "Http.java"))

    def generated(self, language, *command):
        """A client on stubs made from Triton's definition of the protocol, then from proto/inference.proto."""
        for definition in ("triton", "moed"):
            home = os.path.join(HOME, "grpc", f"{language}-{definition}")
            version = self.program(*(part.format(home=home, jars=os.path.join(HOME, "grpc", "jars")) for part in command))[0]
        return version, ("stubs of Triton's protocol, then of proto/inference.proto: health, inference with raw and typed tensors, 50 at "
                         "once, errors, load and unload; metadata, configuration, statistics and index as HTTP has them")

    def grpc_go(self):
        return self.generated("go", "{home}/client")

    def grpc_java(self):
        if not os.path.exists(os.path.join(HOME, "grpc", "java-moed", "classes", "Grpc.class")):
            raise Missing("no stubs for Java")
        return self.generated("java", "java", "-cp", "{home}/classes:{jars}/*", "Grpc")

    def grpcurl(self):
        program = os.path.join(HOME, "go", "grpcurl")
        proto = ["-plaintext", "-import-path", os.path.join(ROOT, "proto"), "-proto", "inference.proto"]
        service = "inference.GRPCInferenceService"

        def call(method, **message):
            return json.loads(run(program, *proto, "-d", json.dumps(message), self.grpc, f"{service}/{method}"))

        assert call("ServerReady")["ready"] is True
        assert call("ModelMetadata", name=MODEL)["platform"] == "moed"
        with open(self.expected, encoding="utf-8") as file:
            image = json.load(file)["image"]
        answer = call("ModelInfer", model_name=MODEL, inputs=[{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28],
                                                               "contents": {"fp32_contents": image}}])
        assert answer["rawOutputContents"], answer
        assert call("ModelStatistics", name=MODEL)["modelStats"], "no statistics"
        return "1.9.3", "Go's gRPC: health, metadata, inference, statistics, from proto/inference.proto"

    def openapi(self):
        program = os.path.join(HOME, "openapi-spec-validator", "bin", "openapi-spec-validator")
        if not shutil.which(program):
            raise Missing("no openapi-spec-validator")
        path = os.path.join(self.directory, "whole.json")
        run("curl", "-sS", "--fail", "-o", path, f"{self.http}/openapi.json")
        assert run(program, "--schema", "3.1", path).rstrip().endswith(": OK")
        with open(path, encoding="utf-8") as file:
            count = sum(map(len, json.load(file)["paths"].values()))
        return run(program, "--version").split()[-1], f"read /openapi.json with its {count} operations as OpenAPI 3.1, and found nothing wrong"

    def described(self):
        """The server's OpenAPI document in a file, with the names of models that there are."""
        document = json.loads(run("curl", "-sS", "--fail", f"{self.http}/openapi.json"))
        named = {"m": ["fashion-mnist", "adult-mmoe", "tiny-lm", "nobody"], "v": ["1", "7"]}
        for path, operations in document["paths"].items():
            for parameter in (parameter for operation in operations.values() for parameter in operation["parameters"]):
                parameter["schema"]["enum"] = ["style.css", "x"] if path.startswith("/ui/") else named[parameter["name"]]
        for name in ("Sampling", "EmbeddingRequest", "TokenizeRequest", "DetokenizeRequest"):
            document["components"]["schemas"][name]["properties"]["model"]["enum"] = ["tiny-lm"]
        document["components"]["schemas"]["Sampling"]["properties"]["max_tokens"]["maximum"] = 50  # in seconds, not hours
        path = os.path.join(self.directory, "openapi.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        return path

    def schemathesis(self):
        program = os.path.join(HOME, "schemathesis", "bin", "schemathesis")
        if not shutil.which(program):
            raise Missing("no schemathesis")
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        done = subprocess.run(
            [program, "run", self.described(), "--url", self.http, "--checks", checks, "--max-examples", "10", "--seed", "1", "--workers", "1",
             "--request-timeout", "60", "--suppress-health-check", "all", "--continue-on-failure", "--no-shrink", "--warnings", "off",
             "--exclude-path-regex", "/routing/live$|/unload$"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
        output = done.stdout
        if done.returncode != 0:
            raise RuntimeError(output[-20000:])
        counts = re.search(r"(\d+) generated", output)
        version = run(program, "--version").split()[-1]
        return version, f"{counts[1] if counts else 'random'} requests: no 5xx, no answer that is not declared"


ALL = ["curl", "kserve", "tritonclient", "perf_analyzer", "mlserver", "openai-python", "openai-js", "prometheus-client", "promtool",
       "go", "java", "grpc-go", "grpc-java", "grpcurl", "openapi"]
NAMES = {"kserve": "kserve SDK", "tritonclient": "Triton's Python clients", "mlserver": "MLServer's client",
         "openai-python": "OpenAI's Python client", "openai-js": "OpenAI's JavaScript client", "go": "Go's net/http",
         "java": "java.net.http.HttpClient", "openapi": "openapi-spec-validator", "grpc-go": "grpc-go, as Triton's Go client",
         "grpc-java": "grpc-java, as Triton's Java client"}


def result_of(clients, name):
    """Version, what it did, and the result, for the table."""
    try:
        return (*getattr(clients, name.replace("-", "_"))(), "passed")
    except Missing as error:
        return "-", "", f"skipped: {error}"
    except (RuntimeError, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"---- {name}\n{error}", file=sys.stderr)
        return "-", "", "FAILED"


def main():
    asked = sys.argv[1:] or ALL
    unknown = [name for name in asked if name not in (*ALL, "schemathesis")]
    if unknown:
        sys.exit(f"{__doc__}\nCLIENT is one of: {' '.join((*ALL, 'schemathesis'))}")
    options = {"grpc_port": 0, "log_level": "info", "admin": "true", "model_control": "explicit", "load_model": "*",
               "non_finite": "accept"}
    failed = False
    with tempfile.TemporaryDirectory() as directory, Server(**options) as server:
        clients = Clients(server, directory)
        clients.curl()  # makes what the others expect
        print("| client | version | what it did | result |\n|---|---|---|---|")
        for name in asked:
            version, what, result = result_of(clients, name)
            failed |= result == "FAILED"
            print(f"| {NAMES.get(name, name)} | {version} | {what} | {result} |", flush=True)
        server.stop()
    print(f"\nOn {platform.machine()}, {platform.freedesktop_os_release()['PRETTY_NAME']}.")
    sys.exit(failed)


if __name__ == "__main__":
    main()
