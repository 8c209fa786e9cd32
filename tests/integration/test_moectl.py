"""moectl and the C client against a real server: documents, help, what goes wrong."""

import csv
import io
import json
import os
import shlex
import subprocess
import tempfile
import unittest

import numpy as np

from support.http import Client
from support.models import Tiny, TwoLayers
from support.moectl import MOECTL, moectl, moectl_environment, needs_moectl
from support.server import ServerCase

COMMANDS = ["models", "predict", "generate", "ablate", "routing", "top", "report", "merge", "export", "bench"]


class MoectlCase(ServerCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    def moectl(self, *arguments, status=0, **keywords):
        done = moectl(*arguments, url=self.server.url, **keywords)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr


@needs_moectl
class DocumentsTest(MoectlCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32)
        assert cls.client.predict("two-layers", cls.rows.tolist()).status == 200

    def test_models(self):
        self.assertEqual(self.moectl("models", "--names"), "tiny\ntwo-layers\n")
        self.assertIn("gate    second, 3 experts serve a row", self.moectl("models"))
        self.assertEqual([model["name"] for model in json.loads(self.moectl("models", "--json"))],
                         ["tiny", "two-layers"])

    def test_routing_is_the_servers_document(self):
        document = json.loads(self.moectl("routing", "two-layers", "--json"))
        counts = self.client.get("/v2/models/two-layers/routing").json["layers"]
        self.assertEqual([[expert["selected"] for expert in layer["experts"]] for layer in document["layers"]],
                         [[expert["selected"] for expert in layer["experts"]] for layer in counts])

    def test_routing_as_a_table(self):
        table = self.moectl("routing", "two-layers")
        self.assertNotIn("\033", table)
        self.assertIn("second   90 rows, 3 of 5 experts serve a row", table)
        self.assertIn("█", table)
        self.assertIn("#", self.moectl("routing", "two-layers", env={"LC_ALL": "C"}))

    def test_a_reference_is_shown_beside_the_share(self):
        document = json.loads(self.moectl("routing", "two-layers", "--json", "--layer", "first"))
        self.assertNotIn("expected", self.moectl("routing", "two-layers"))
        for expert in document["layers"][0]["experts"]:
            expert["reference_share"] = 0.125
        table = self.moectl("routing", "--from", "-", input=json.dumps(document))
        self.assertRegex(table, r"top1 expected  bar")
        self.assertRegex(table, r"(?m)^ +0 .*%    12.5%  ")

    def test_rows_of_huge_weights_are_told_and_add_up(self):
        document = self.client.get("/v2/models/two-layers/routing").json
        document["layers"][1]["overflowed"] = 2
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "routing.json")
            with open(path, "w") as file:
                json.dump(document, file)
            self.assertEqual(self.moectl("routing", "--from", path).count("beyond 2^19, in no sum of weights: 2\n"), 1)
            merged = json.loads(self.moectl("merge", path, path))
        self.assertEqual([layer["overflowed"] for layer in merged["layers"]], [0, 4])

    def test_who_is_in_quarantine_is_told(self):
        document = json.loads(self.moectl("routing", "two-layers", "--json", "--layer", "first"))
        document["layers"][0]["quarantine"] = [{"expert": 2, "reason": "gives \033[31mNaN"}, {"expert": 3, "reason": ""}]
        for command in (("routing", "--from", "-"), ("report", "-")):
            shown = self.moectl(*command, input=json.dumps(document))
            self.assertRegex(shown, r"expert 2 is in quarantine: gives [^\033]*NaN")
            self.assertIn("expert 3 is in quarantine: no reason given", shown)

    def test_routing_as_csv(self):
        lines = list(csv.DictReader(io.StringIO(self.moectl("routing", "two-layers", "--csv", "--layer", "second"))))
        _, _, second = TwoLayers().forward(self.rows)
        self.assertEqual([int(line["selected"]) for line in lines],
                         [int((second[1] == i).sum()) for i in range(5)])
        self.assertEqual({line["layer"] for line in lines}, {"second"})

    def test_quality_from_labels(self):
        """What an expert gets right is in the table, in the report and in the sum of two documents."""
        output, _, _ = TwoLayers().forward(self.rows)
        right = output.argmax(axis=1)
        with self.start() as server, Client(server.port) as client:
            labels = [int(label) for label in (right + (np.arange(len(right)) % 4 == 0)) % 3]  # a quarter is wrong
            self.assertEqual(client.predict("two-layers", self.rows.tolist(), labels=labels).status, 200)
            document = moectl("routing", "two-layers", "--json", url=server.url).stdout
            server.stop()
        self.assertIn("accuracy", self.moectl("routing", "--from", "-", input=document))
        experts = json.loads(document)["layers"][0]["experts"]
        right_rows = sum(expert["labelled"] * expert["accuracy"] for expert in experts if expert["labelled"])
        self.assertAlmostEqual(right_rows, sum(label == answer for label, answer in zip(labels, right)))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(document)
            file.flush()
            merged = json.loads(self.moectl("merge", file.name, file.name))["layers"][0]["experts"]
        for expert, sum_of_two in zip(experts, merged):
            if expert["labelled"]:
                self.assertEqual(sum_of_two["labelled"], 2 * expert["labelled"])
                self.assertAlmostEqual(sum_of_two["accuracy"], expert["accuracy"], places=12)
                self.assertNotIn("ece", sum_of_two)

    def test_a_kept_document(self):
        document = self.moectl("routing", "two-layers", "--json")
        self.assertEqual(self.moectl("routing", "--from", "-", "--csv", input=document),
                         self.moectl("routing", "two-layers", "--csv"))


@needs_moectl
class UsageTest(MoectlCase):
    def test_help_of_every_command_has_examples_and_exit_status(self):
        for command in COMMANDS:
            with self.subTest(command):
                text = self.moectl(command, "--help")
                self.assertIn(f"Usage: moectl {command}", text)
                self.assertIn("\n  moectl " + command, text)
                self.assertIn("Exit status: 0: done. 1: failed", text)
                self.assertEqual(text, self.moectl("help", command))

    def test_no_command_is_wrong_usage(self):
        self.assertIn("moectl routing", self.moectl(status=2))
        self.assertIn("there is no command 'rooting'", self.moectl("rooting", status=2))

    def test_wrong_usage_names_what_was_expected(self):
        for arguments, words in [
                (["routing"], "expected a MODEL, or --from FILE"),
                (["routing", "tiny", "tiny"], "unexpected argument 'tiny'"),
                (["routing", "tiny", "--window", "2m"], "--window: expected 1m|5m|1h|all, got '2m'"),
                (["routing", "tiny", "--timeout", "0"], "--timeout: expected a number from 0.001"),
                (["routing", "tiny", "--widow", "5m"], "routing has no option --widow; there are --url"),
                (["routing", "--foo"], " --version --window --layer --tag --include --from --json --csv\n"),
                (["routing", "tiny", "--layer"], "--layer: expected NAME behind it"),
                (["routing", "tiny", "--json=1"], "--json takes no value"),
                (["routing", "tiny", "-x"], "two dashes")]:
            with self.subTest(arguments):
                self.assertIn(words, self.moectl(*arguments, status=2))

    def test_a_model_without_rows_has_no_figures(self):
        self.assertIn("\n  imbalance -   effective experts -\n  gate entropy -\n", self.moectl("routing", "tiny"))
        self.assertIn(" imbalance=- unused=", self.moectl("top", "tiny", "--count", "1"))

    def test_failures_say_what_and_where(self):
        self.assertIn("404: unknown model 'nope'", self.moectl("routing", "nope", status=1))
        self.assertIn("layer is 'x'", self.moectl("routing", "tiny", "--layer", "x", status=1))
        document = self.moectl("routing", "tiny", "--json")
        self.assertIn("there are 'moe'", self.moectl("routing", "--from", "-", "--layer", "x", input=document, status=1))
        self.assertIn("/nowhere.json: No such file", self.moectl("routing", "--from", "/nowhere.json", status=1))
        self.assertIn("layers", self.moectl("routing", "--from", "-", input="{}", status=1))
        self.assertIn("http://127.0.0.1:1: no answer", self.moectl("models", "--url", "http://127.0.0.1:1", status=1))

    def test_the_url_of_the_environment_gives_way_to_the_option(self):
        done = moectl("models", "--names", "--url", self.server.url, url="http://127.0.0.1:1")
        self.assertEqual((done.returncode, done.stdout), (0, "tiny\ntwo-layers\n"))

    def test_the_manual_and_the_completion_name_every_command_and_option(self):
        manual, completion = self.moectl("--man"), self.moectl("--completion")
        for command in COMMANDS:
            self.assertIn(f"moectl {command}", manual)
            for line in self.moectl(command, "--help").splitlines():
                if line.startswith("  --"):
                    option = line.split()[0]
                    self.assertIn(option.replace("-", "\\-"), manual)
                    self.assertIn(option, completion)

    def complete(self, line):
        words = line.split(" ")
        script = (self.moectl("--completion") + f'COMP_WORDS=({" ".join(map(shlex.quote, words))})\n'
                  f'COMP_CWORD={len(words) - 1}\n_moectl\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n')
        path = os.path.dirname(MOECTL) + ":" + os.environ["PATH"]
        done = subprocess.run(["bash", "-c", script], env=moectl_environment(self.server.url, PATH=path),
                              capture_output=True, text=True, check=True)
        return done.stdout.split()

    def test_completion(self):
        self.assertEqual(self.complete("moectl rou"), ["routing"])
        self.assertEqual(self.complete("moectl routing "), ["tiny", "two-layers"])
        self.assertEqual(self.complete("moectl routing tiny --win"), ["--window"])
        self.assertEqual(self.complete("moectl routing tiny --window "), ["1m", "5m", "1h", "all"])


if __name__ == "__main__":
    unittest.main()
