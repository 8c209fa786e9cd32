"""Who may ask for what: tokens with roles, administration that is off, rates of addresses."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import tempfile
import time
import unittest

from support.http import Client
from support.moectl import moectl, needs_moectl
from support.server import SHIPPED_MODELS, ServerCase, run

ADMIN = (("/v2/repository/models/clusters/load", b""), ("/v2/repository/models/clusters/unload", b""),
         ("/v2/models/clusters/routing/reset", b""), ("/v2/logging", b"{}"),
         ("/v2/trace/setting", b"{}"))
METRICS = ("/metrics", "/v2/models/stats", "/v2/models/clusters/routing", "/v2/logging", "/v2/trace/setting")
HEALTH = ("/", "/healthz", "/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready")


def make(*arguments):
    """A token and its line of the file."""
    done = run("token", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:2]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class CommandTest(unittest.TestCase):
    def test_tokens_are_made(self):
        token, line = make("--role", "predict,metrics", "--name", "shop")
        self.assertRegex(token, "^moed_[0-9a-f]{64}$")
        self.assertRegex(line, "^[0-9a-f]{64} predict,metrics shop$")
        self.assertNotEqual(make()[0], make("--role=predict")[0])
        for wrong, word in ((("--role", "root"), "token: --role: expected roles"), (("--name", "a b"), "token: --name: expected a name"),
                            (("--name",), "got '--name'"), (("x",), "got 'x'")):
            done = run("token", *wrong)
            self.assertEqual(done.returncode, 2)
            self.assertIn(word, done.stderr)

    def test_a_file_that_is_wrong_ends_the_start(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "tokens")
            with open(path, "w") as file:
                file.write("# ours\nsecret predict me\n")
            done = run("serve", "--models", directory, "--port", "0", "--tokens", path)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"tokens: {path} line 2: expected a SHA-256", done.stderr)
            self.assertNotIn("secret", done.stderr)
            done = run("serve", "--models", directory, "--port", "0", "--tokens", "/nowhere")
            self.assertIn("tokens: /nowhere: cannot open: No such file", done.stderr)


class ClosedTest(ServerCase):
    """Without any option."""

    def test_administration_is_off(self):
        for path, body in ADMIN:
            self.assert_error(self.client.post(path, body), 403, "--admin", "--tokens")
        for path in METRICS:
            self.assertEqual(self.client.get(path).status, 200)


class OpenTest(ServerCase):
    options = {"admin": "true", "cors_origin": "https://ours.example"}

    def test_pages_of_others_may_not_administer(self):
        """A browser sends such a POST for any page, without asking first."""
        reset = ("/v2/models/clusters/routing/reset", b"")
        own = f"http://127.0.0.1:{self.server.port}"
        for origin, status in (("https://evil.example", 403), ("null", 403), ("https://ours.example", 200), (own, 200)):
            headers = {"Host": own[len("http://"):], "Origin": origin}
            self.assertEqual(self.client.post(*reset, headers).status, status, origin)
        self.assertEqual(self.client.post(*reset).status, 200)

    def test_nor_by_a_picture(self):
        """With a GET, which SGLang's clients send too, a browser tells no origin."""
        for headers, status in (({"Sec-Fetch-Site": "cross-site", "User-Agent": "Mozilla/5.0"}, 403),
                                ({"Sec-Fetch-Site": "same-site"}, 403), ({"User-Agent": "Mozilla/5.0 (X11)"}, 403),
                                ({"Sec-Fetch-Site": "none", "User-Agent": "Mozilla/5.0"}, 200),
                                ({"Sec-Fetch-Site": "same-origin", "User-Agent": "Mozilla/5.0"}, 200),
                                ({"User-Agent": "curl/7.88.1"}, 200), ({}, 200)):
            answer = self.client.get("/start_expert_distribution_record", headers)
            self.assertEqual(answer.status, status, (headers, answer.body))
        reading = self.client.get("/metrics", {"Sec-Fetch-Site": "cross-site"})
        self.assertEqual(reading.status, 200)

    def test_what_is_open_takes_no_body(self):
        for method, path, headers, status in (
                ("GET", "/healthz", {}, 413), ("POST", "/v2/health/live", {}, 405),
                ("OPTIONS", "/v2/x", {"Origin": "https://ours.example", "Access-Control-Request-Method": "POST"}, 413)):
            answer = self.new_client().request(method, path, b"", {**headers, "Content-Length": 60 << 20})
            self.assertEqual((answer.status, answer.closes), (status, True), path)


class TokensCase(ServerCase):
    @classmethod
    def start(cls, **options):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.path = os.path.join(directory.name, "tokens")
        cls.tokens = {name: make("--role", role, "--name", name) for name, role in
                      (("client", "predict"), ("prometheus", "metrics"), ("root", "admin"))}
        cls.write(cls.tokens)
        return super().start(tokens=cls.path, **options)

    @classmethod
    def write(cls, tokens):
        with open(cls.path, "w") as file:
            file.write("".join(line + "\n" for _, line in tokens.values()))

    def get(self, path, name):
        return self.client.get(path, bearer(self.tokens[name][0]))


class TokensTest(TokensCase):
    options = {"model_control": "explicit", "load_model": "*", "log_level": "info", "cors_origin": "https://a.example"}

    def test_health_is_open(self):
        for path in HEALTH:
            self.assertEqual(self.client.get(path).status, 200)

    def test_everything_else_takes_a_token(self):
        for path in (*METRICS, "/v2", "/v1/models", "/v2/models/clusters", "/v2/models/unknown", "/openapi.json", "/x"):
            answer = self.client.get(path)
            self.assert_error(answer, 401, "Authorization: Bearer TOKEN")
            self.assertEqual(answer.headers["www-authenticate"], 'Bearer realm="moed"')
            self.assertFalse(answer.closes)
        for headers in ({"Authorization": "Basic eDp5"}, {"Authorization": "moed_x"}, {"X-Api-Key": "x"}):
            self.assertEqual(self.client.get("/v2", headers).status, 401)

    def test_openai_clients_are_refused_in_their_own_shape(self):
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v1/models",
                     "/v1/models/clusters"):
            for name, status in ((None, 401), ("prometheus", 403)):
                headers = bearer(self.tokens[name][0]) if name else {}
                method = "GET" if "models" in path else "POST"
                error = self.new_client().request(method, path, b"{}" if method == "POST" else b"", headers)
                self.assert_error(error, status)
                self.assertEqual(error.json["error"]["type"], "invalid_request_error", path)

    def test_pages_of_allowed_origins_see_why_they_are_refused(self):
        for path, body in (("/v2", b""), ("/v1/completions", b"{}")):
            for origin, seen in (("https://a.example", "https://a.example"), ("https://b.example", None)):
                answer = self.new_client().request("POST", path, body, {"Origin": origin})
                self.assertEqual((answer.status, answer.headers.get("access-control-allow-origin")), (401, seen), path)

    def test_roles(self):
        for path, allowed in (("/v2", ("client", "root")), ("/metrics", ("prometheus", "root")),
                              ("/v2/models/clusters/routing", ("prometheus", "root"))):
            for name in self.tokens:
                self.assertEqual(self.get(path, name).status, 200 if name in allowed else 403, (path, name))
        self.assert_error(self.get("/metrics", "client"), 403, "metrics", '"client"')
        for name in ("client", "prometheus"):
            for path, body in ADMIN:
                answer = self.client.post(path, body, bearer(self.tokens[name][0]))
                self.assertEqual(answer.status, 403)
        for path, body in ADMIN[2:] + ADMIN[:1]:
            self.assertEqual(self.client.post(path, body, bearer(self.tokens["root"][0])).status, 200, path)

    @needs_moectl
    def test_moectl_with_a_token_that_reads_statistics_only(self):
        env = {"MOED_TOKEN": self.tokens["prometheus"][0]}
        for command in (("top", "--count", "1"), ("top", "clusters", "--count", "1"), ("routing", "clusters")):
            done = moectl(*command, url=self.server.url, env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""), command)
        self.assertIn(" moe rows=", moectl("top", "clusters", "--count", "1", url=self.server.url, env=env).stdout)
        self.assertIn("403", moectl("models", url=self.server.url, env=env).stderr)
        self.assertIn("(moectl: MOED_TOKEN or --token)", moectl("models", url=self.server.url).stderr)
        self.assertNotIn("MOED_TOKEN", moectl("models", url=self.server.url, env={"MOED_TOKEN": "moed_wrong"}).stderr)

    def test_names_are_logged_and_tokens_are_not(self):
        self.get("/v2?who", "client")
        self.await_log(r"path=/v2 status=200 .* token=client")
        log = self.server.log()
        for token, _ in self.tokens.values():
            self.assertNotIn(token, log)

    def test_a_body_is_not_read_before_the_token(self):
        """The client is refused when its header is there: it may not make the server hold 60 MB."""
        connection = self.new_client()
        answer = connection.request("POST", "/v2/models/clusters/infer", b"", {"Content-Length": 60 << 20})
        self.assert_error(answer, 401, "Bearer")
        self.assertTrue(answer.closes)
        self.assertIn("x-request-id", answer.headers)
        self.assertEqual(answer.headers["www-authenticate"], 'Bearer realm="moed"')

    def test_wrong_tokens_are_limited(self):
        """In a server of its own, since all tests have one address."""
        server = self.start()
        self.addCleanup(server.stop)
        client = type(self.client)(server.port)
        self.addCleanup(client.close)
        answers = [client.get("/v2", bearer(f"moed_{i}")) for i in range(12)]
        self.assertEqual([answer.status for answer in answers], [401] * 10 + [429] * 2)
        self.assertIn("invalid_token", answers[0].headers["www-authenticate"])
        self.assertTrue(1 <= int(answers[-1].headers["retry-after"]) <= 6)
        self.assertEqual(client.get("/v2", bearer(self.tokens["client"][0])).status, 200)  # others behind this address
        self.assertEqual(client.get("/v2").status, 401)

    def test_reload(self):
        new = make("--role", "predict", "--name", "new")
        self.assertEqual(self.client.get("/v2", bearer(new[0])).status, 401)
        self.server.signal(signal.SIGHUP)
        self.await_log('event=tokens message="[0-9]+ tokens, the same as before"')
        self.write({"new": new, "root": self.tokens["root"]})
        self.server.signal(signal.SIGHUP)
        self.await_status(new[0], 200)
        self.assertEqual(self.get("/v2", "client").status, 401)
        with open(self.path, "w") as file:
            file.write("nonsense\n")
        self.server.signal(signal.SIGHUP)
        self.await_log("tokens_failed")
        self.assertEqual(self.client.get("/v2", bearer(new[0])).status, 200)  # those before stay
        with open(self.path, "w") as file:
            file.write("# nobody\n")
        self.server.signal(signal.SIGHUP)
        self.await_log("no_tokens")
        self.await_status(new[0], 401)
        self.write(self.tokens)
        self.server.signal(signal.SIGHUP)
        self.await_status(self.tokens["client"][0], 200)

    def await_status(self, token, status):
        deadline = time.monotonic() + 60
        while self.client.get("/v2", bearer(token)).status != status and time.monotonic() < deadline:
            time.sleep(0.7)  # within the limit of wrong tokens
        self.assertEqual(self.client.get("/v2", bearer(token)).status, status)


class UnixClient(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None, headers=None):
        """The status and the body."""
        self.request(method, path, body, headers or {})
        answer = self.getresponse()
        return answer.status, answer.read()


class AdminListenerTest(ServerCase):
    options = {"max_connections_per_ip": 3, "log_level": "info"}

    @classmethod
    def start(cls, **options):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.socket = os.path.join(directory.name, "admin")
        stale = socket.socket(socket.AF_UNIX)  # of a server that was killed
        stale.bind(cls.socket)
        stale.close()
        return super().start(admin_listen=f"unix:{cls.socket}", **options)

    def test_metrics_and_administration_are_only_there(self):
        with contextlib.closing(UnixClient(self.socket)) as admin:
            for path in METRICS:
                self.assertEqual(admin.ask("GET", path)[0], 200, path)
                self.assert_error(self.client.get(path), 403, "admin listener")
            for path, body in ADMIN:
                self.assertNotEqual(admin.ask("POST", path, body)[0], 403, path)
                self.assert_error(self.client.post(path, body), 403, "admin listener")
            for path in (*HEALTH, "/v1/models", "/v2/models/clusters"):
                self.assertEqual(admin.ask("GET", path)[0], 200, path)
                self.assertEqual(self.client.get(path).status, 200, path)
            self.assertIn(b"moed_connections 2", admin.ask("GET", "/metrics")[1])

    def test_only_owner_and_group_may_connect(self):
        status = os.stat(self.socket)
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)
        self.assertRegex(self.server.log(), f'metrics on unix:{self.socket}"?\n')

    def test_many_connect_without_an_address(self):
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                admin = stack.enter_context(contextlib.closing(UnixClient(self.socket)))
                self.assertEqual(admin.ask("GET", "/livez")[0], 200)

    @needs_moectl
    def test_moectl(self):
        elsewhere = {"http_proxy": "http://127.0.0.1:1", "NO_PROXY": ""}  # no proxy leads to a socket
        done = moectl("routing", "clusters", "--json", url=f"unix:{self.socket}", env=elsewhere)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["model"], "clusters")
        done = moectl("routing", "clusters", "--url", f"unix:{self.socket}.gone")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"unix:{self.socket}.gone: no answer: No such file or directory", done.stderr)
        self.assertIn("a socket, 1 to 107 bytes", moectl("models", "--url", f"unix:/{'x' * 107}").stderr)

    def test_two_servers_do_not_share_it(self):
        done = run("serve", "--models", SHIPPED_MODELS, "--port", "0", "--admin-listen", f"unix:{self.socket}")
        self.assertEqual(done.returncode, 1)
        self.assertIn("another process listens there", done.stderr)
        with contextlib.closing(UnixClient(self.socket)) as admin:
            self.assertEqual(admin.ask("GET", "/livez")[0], 200)

    def test_a_file_that_is_none_is_left_alone(self):
        with tempfile.NamedTemporaryFile() as file:
            done = run("serve", "--models", SHIPPED_MODELS, "--port", "0", "--admin-listen", f"unix:{file.name}")
            self.assertEqual(done.returncode, 1)
            self.assertIn("no socket", done.stderr)
            self.assertTrue(os.path.exists(file.name))
        for wrong in ("8081", "x", "a:b", ":1", "::1:80", "unix:x", "unix:/" + 200 * "x", "h:70000"):
            done = run("check-config", "--models", "x", "--admin-listen", wrong)
            self.assertEqual(done.returncode, 2, wrong)
            self.assertIn("admin_listen: expected", done.stderr)


class AdminPortTest(TokensCase):
    """A port, with several loops, and tokens on both listeners."""

    options = {"admin_listen": "127.0.0.1:0", "loops": 2, "log_level": "info"}

    def test_tokens_hold_there_too(self):
        port = int(re.search(r"administration and metrics on 127.0.0.1 port (\d+)", self.server.log())[1])
        admin = Client(port)
        self.addCleanup(admin.close)
        self.assertEqual(admin.get("/healthz").status, 200)
        self.assertEqual(admin.get("/metrics").status, 401)
        self.assertEqual(admin.get("/metrics", bearer(self.tokens["client"][0])).status, 403)
        self.assertEqual(admin.get("/metrics", bearer(self.tokens["prometheus"][0])).status, 200)
        reset = ("/v2/models/clusters/routing/reset", b"")
        self.assertEqual(admin.post(*reset, bearer(self.tokens["root"][0])).status, 200)
        self.assertEqual(self.client.post(*reset, bearer(self.tokens["root"][0])).status, 403)


class RateTest(ServerCase):
    options = {"rate_limit": 1, "rate_burst": 5}

    def test_a_client_that_asks_too_often_is_told_to_wait(self):
        statuses = []
        for _ in range(8):
            answer = self.client.get("/v2")
            statuses.append(answer.status)
        self.assertEqual(statuses[:5], [200] * 5)
        self.assertIn(429, statuses[5:])
        self.assert_error(answer, 429, "too many requests from 127.0.0.1")
        self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)
        for _ in range(10):
            self.assertEqual(self.client.get("/v2/health/ready").status, 200)
        connection = self.new_client()
        answer = connection.post("/v2/models/clusters/infer", b"x" * 100)
        self.assertEqual(answer.status, 429)
        answer = self.new_client().post("/v1/completions", {"prompt": "a"})
        self.assertEqual((answer.status, answer.json["error"]["code"]), (429, "rate_limit_exceeded"))
        time.sleep(2.1)
        self.assertEqual(self.client.get("/v2").status, 200)


if __name__ == "__main__":
    unittest.main()
