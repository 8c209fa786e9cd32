"""What lies in deploy/, read by the tools that own its formats, as far as they are installed."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from support.server import ROOT

DEPLOY = os.path.join(ROOT, "deploy")
PROMETHEUS = os.path.join(DEPLOY, "prometheus")
CHART = os.path.join(DEPLOY, "helm", "moed")


def tool(name, *arguments):
    """What the tool says when it is content; fails the test when it is not."""
    ended = subprocess.run([name, *arguments], capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode != 0:
        raise AssertionError(f"{name} {' '.join(arguments)}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


@unittest.skipUnless(shutil.which("promtool"), "promtool is missing: apt-get install prometheus")
class PrometheusTest(unittest.TestCase):
    def test_rules_are_valid(self):
        tool("promtool", "check", "rules", os.path.join(PROMETHEUS, "rules.yml"))

    def test_rules_fire_when_they_should_and_only_then(self):
        tool("promtool", "test", "rules", os.path.join(PROMETHEUS, "rules_test.yml"))

    def test_configuration(self):
        tool("promtool", "check", "config", "--syntax-only", os.path.join(PROMETHEUS, "prometheus.yml"))


class NamesTest(unittest.TestCase):
    """Rules and dashboards ask for metrics that there are."""

    def setUp(self):
        with open(os.path.join(ROOT, "proto", "METRICS.md"), encoding="utf-8") as page:
            self.known = set(re.findall(r"^\| `(\w+)`", page.read(), re.M))

    def check(self, path, text):
        for name in set(re.findall(r"\b(?:moed|process)_\w+", text)):
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            self.assertTrue({name, family} & self.known, f"{path}: {name} is no metric of proto/METRICS.md")

    def test_rules(self):
        for path in (os.path.join(PROMETHEUS, "rules.yml"), os.path.join(PROMETHEUS, "rules_test.yml")):
            with open(path, encoding="utf-8") as file:
                self.check(path, file.read())

    def test_dashboards(self):
        for path in glob.glob(os.path.join(DEPLOY, "grafana", "dashboards", "*.json")):
            with open(path, encoding="utf-8") as file:
                text = file.read()
            json.loads(text)
            self.check(path, text)

    def test_the_dashboard_is_what_its_maker_makes(self):
        made = tool(sys.executable, os.path.join(DEPLOY, "grafana", "make_dashboard.py"))
        with open(os.path.join(DEPLOY, "grafana", "dashboards", "moed.json"), encoding="utf-8") as file:
            self.assertEqual(file.read(), made)

    @unittest.skipUnless(shutil.which("promtool"), "promtool is missing: apt-get install prometheus")
    def test_the_dashboard_s_queries_are_promql(self):
        """As rules, which promtool reads; its variables are Grafana's."""
        with open(os.path.join(DEPLOY, "grafana", "dashboards", "moed.json"), encoding="utf-8") as file:
            queries = [target["expr"] for panel in json.load(file)["panels"] for target in panel.get("targets", [])]
        rules = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries)]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            tool("promtool", "check", "rules", file.name)


class UnitTest(unittest.TestCase):
    def test_the_server_may_lock_itself_in(self):
        """What systemd's filter does not list ends the process or fails; these are in none of its groups."""
        with open(os.path.join(ROOT, "server", "access", "sandbox.c"), encoding="utf-8") as file:
            calls = set(re.findall(r"syscall\(SYS_(\w+)", file.read()))
        with open(os.path.join(DEPLOY, "systemd", "moed.service"), encoding="utf-8") as file:
            unit = file.read()
        allowed = set(" ".join(re.findall(r"^SystemCallFilter=([^@~].*)$", unit, re.M)).split())
        self.assertEqual(calls, allowed)
        self.assertIn("SystemCallErrorNumber=EPERM", unit)


class ImageTest(unittest.TestCase):
    def test_it_is_built_with_every_library(self):
        with open(os.path.join(DEPLOY, "packages.sh"), encoding="utf-8") as file:
            packages = re.search(r'^BUILD_PACKAGES="(.*?)"', file.read(), re.M | re.S)[1].split()
        with open(os.path.join(DEPLOY, "container", "build.sh"), encoding="utf-8") as file:
            script = file.read()
        libraries = re.search(r"for name in (.*?); do", script)[1].split()
        tools = re.search(r"--no-install-recommends (.*?) \\\n", script)[1].split()
        of_client, compiler = {"libcurl4-openssl-dev"}, {"build-essential"} # in the image's build: a cross compiler and its libc
        self.assertEqual(set(packages) - of_client - compiler,
                         {f"{name}-dev" for name in libraries if name != "libc6"} | set(tools))


class UnitTest(unittest.TestCase):
    """The unit with the lines that are offered as comments, as systemd reads it."""

    def setUp(self):
        with open(os.path.join(DEPLOY, "systemd", "moed.service"), encoding="utf-8") as file:
            self.unit = re.sub(r"^#(?=(LoadCredential|Environment)=)", "", file.read(), flags=re.M)

    def test_every_credential_is_given_to_an_option(self):
        files = dict(re.findall(r"^LoadCredential=(\w+):(/etc/moed/\S+)$", self.unit, re.M))
        given = re.findall(r"^Environment=MOED_(\w+)=%d/(\w+)$", self.unit, re.M)
        self.assertEqual({name.lower(): name.lower() for name in files}, {option.lower(): name for option, name in given})
        self.assertEqual(set(files), {"tokens", "tls_cert", "tls_key", "tls_client_ca"})
        with open(os.path.join(DEPLOY, "moed.conf"), encoding="utf-8") as file:
            options = set(re.findall(r"^#(\w+) = ", file.read(), re.M))
        self.assertLessEqual(set(files), options)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_systemd_understands_it(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "moed.service")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.unit.replace("/usr/local/bin/moed", "/bin/true"))
            ended = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True,
                                   timeout=60, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))


@unittest.skipUnless(shutil.which("helm"), "helm is missing")
class ChartTest(unittest.TestCase):
    OPTIONS = ["--kube-version", "1.31.0", "--set", "autoscaling.enabled=true,autoscaling.targetQueueRows=100,"
               "serviceMonitor.enabled=true,models.volume.persistentVolumeClaim.claimName=models,"
               "options.max_body_bytes=16777216"]

    def test_lint(self):
        tool("helm", "lint", "--strict", CHART)

    def test_every_template(self):
        page = tool("helm", "template", "release", CHART, *self.OPTIONS)
        for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler",
                     "NetworkPolicy", "ServiceMonitor"):
            self.assertIn(f"kind: {kind}\n", page)
        self.assertIn('value: "16777216"', page)
        self.assertIn("terminationGracePeriodSeconds: 45", page)

    def test_where_it_may_connect_to_is_a_value(self):
        collector = '[{"to": [{"podSelector": {}}], "ports": [{"port": 4318}]}]'
        self.assertIn("egress:\n    []", tool("helm", "template", "release", CHART, *self.OPTIONS))
        page = tool("helm", "template", "release", CHART, *self.OPTIONS, "--set-json", f"networkPolicy.egress={collector}")
        self.assertIn("egress:\n    - ports:\n      - port: 4318\n", page)

    def test_with_tls_the_service_and_prometheus_know(self):
        page = tool("helm", "template", "release", CHART, *self.OPTIONS, "--set", "tls.secret=pair")
        self.assertIn("appProtocol: https}", page)
        self.assertIn("scheme: https\n", page)
        self.assertNotIn("scheme: http\n", page)

    def test_grpc_has_a_port_of_the_pod_the_service_and_the_policy(self):
        page = tool("helm", "template", "release", CHART, *self.OPTIONS, "--set", "grpc.port=9000")
        for line in ('{name: MOED_GRPC_PORT, value: "9000"}', "{name: grpc, containerPort: 9000}",
                     "{name: grpc, port: 9000, targetPort: grpc, appProtocol: kubernetes.io/h2c}", "{port: http}, {port: grpc}"):
            self.assertIn(line, page)
        self.assertNotIn("grpc", tool("helm", "template", "release", CHART, *self.OPTIONS).lower())

    def test_state_has_a_volume_that_replicas_do_not_share(self):
        page = tool("helm", "template", "release", CHART, *self.OPTIONS, "--set-json", 'state.volume={"emptyDir": {}}')
        for line in ("{name: MOED_STATE, value: /var/lib/moed}", "{name: state, mountPath: /var/lib/moed}",
                     "- name: state\n          emptyDir: {}\n", "fsGroup: 10001\n"):
            self.assertIn(line, page)
        ended = subprocess.run(["helm", "template", "release", CHART, "--set", "state.volume.persistentVolumeClaim.claimName=one"],
                               capture_output=True, text=True, timeout=120, check=False)
        self.assertIn("state.volume", ended.stderr)

    def test_secrets_are_for_the_servers_group_only(self):
        page = tool("helm", "template", "release", CHART, "--kube-version", "1.31.0", "--set", "tls.secret=pair,tokens.secret=lines")
        self.assertEqual(page.count("defaultMode: 0440}"), 2)
        self.assertIn("fsGroup: 10001\n", page)
        self.assertNotIn("fsGroup", tool("helm", "template", "release", CHART, *self.OPTIONS))

    def test_with_tokens_prometheus_needs_one(self):
        ended = subprocess.run(["helm", "template", "release", CHART, *self.OPTIONS, "--set", "tokens.secret=lines"],
                               capture_output=True, text=True, timeout=120, check=False)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("authorization", ended.stderr)

    def test_a_misspelt_value_is_refused(self):
        ended = subprocess.run(["helm", "template", "release", CHART, *self.OPTIONS, "--set", "replcas=3"],
                               capture_output=True, text=True, timeout=120, check=False)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("replcas", ended.stderr)


if __name__ == "__main__":
    unittest.main()
