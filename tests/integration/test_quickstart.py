"""deploy/quickstart.sh with nothing to install or build, from a directory with a name that a shell takes apart; what the
documents say about moectl.
"""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest

from support.moectl import MOECTL, needs_moectl
from support.server import BINARY, ROOT, environment

TIMEOUT_SECONDS = 60

# In place of deploy/packages.sh: all is there.
NOTHING_TO_DO = """
BUILD_PACKAGES= SHOW_PACKAGES=
missing_packages() { :; }
install_packages() { :; }
with_progress() { :; }
"""


class QuickstartCase(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = os.path.join(directory.name, "it's my $HOME")
        self.build = os.path.join(self.root, "build", "release")
        deploy = os.path.join(self.root, "deploy")
        os.makedirs(self.build)
        os.mkdir(deploy)
        os.symlink(BINARY, os.path.join(self.build, "moed"))
        for name in ("models", "speak.py", "example.json"):
            os.symlink(os.path.join(ROOT, "deploy", name), os.path.join(deploy, name))
        for name, text in (("packages.sh", NOTHING_TO_DO), ("classify.py", "")):
            with open(os.path.join(deploy, name), "w", encoding="utf-8") as file:
                file.write(text)
        self.script = shutil.copy(os.path.join(ROOT, "deploy", "quickstart.sh"), deploy)


@needs_moectl
class ServingTest(QuickstartCase):
    def setUp(self):
        super().setUp()
        os.symlink(MOECTL, os.path.join(self.build, "moectl"))
        # Its own port is taken, as another program may have it.
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        with open(self.script, encoding="utf-8") as file:
            text = file.read()
        with open(self.script, "w", encoding="utf-8") as file:
            file.write(text.replace("PORT=8080", f"PORT={taken.getsockname()[1]}"))

    def serve(self):
        """Starts it; what it says until it serves."""
        process = subprocess.Popen(["sh", self.script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   encoding="utf-8", env=environment({"PYTHONIOENCODING": "utf-8"}))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        timer = threading.Timer(TIMEOUT_SECONDS, process.terminate)
        self.addCleanup(timer.cancel)
        timer.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if "==> Serving at" in line:
                return process, "".join(said)
        return self.fail("".join(said))

    def test_what_it_says_to_try(self):
        process, said = self.serve()
        self.assertIn("is taken, so this is another one", said)
        place, *commands = re.search(r"the dashboard.*\n((?:    .+\n)+)", said)[1].splitlines()
        self.assertGreater(len(commands), 5, said)
        for command in commands:
            with self.subTest(command.strip()):
                done = subprocess.run(["sh", "-c", f"{place} &&{command}"], capture_output=True, encoding="utf-8",
                                      env=environment({"PYTHONIOENCODING": "utf-8"}), timeout=TIMEOUT_SECONDS)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn('"error"', done.stdout)
        process.send_signal(signal.SIGINT)
        self.assertIn("answered everything and stopped", process.stdout.read())
        self.assertEqual(process.wait(TIMEOUT_SECONDS), 0)


    def assert_stopped(self, said):
        address = re.search(r"listening on http://([\d.]+):(\d+)", said)
        with self.assertRaises(ConnectionRefusedError, msg="the server was left behind"):
            socket.create_connection((address[1], int(address[2])))

    def test_a_reader_that_has_seen_enough(self):
        """As `| head` does, while the script itself is speaking."""
        with open(os.path.join(self.root, "deploy", "classify.py"), "w", encoding="utf-8") as file:
            file.write("import time\ntime.sleep(1)\n")
        process = subprocess.Popen(["sh", self.script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
                                   env=environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        said = "".join(iter(process.stdout.readline, "==> Classify images from the Fashion-MNIST test set\n"))
        process.stdout.close()
        process.wait(TIMEOUT_SECONDS)
        self.assert_stopped(said)

    def test_a_terminal_that_is_closed(self):
        pid, terminal = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests were started with
            os.execvpe("sh", ["sh", self.script], environment({"PYTHONIOENCODING": "utf-8"}))
        said = b""
        while b"==> Serving at" not in said:
            said += os.read(terminal, 1 << 16)
        os.close(terminal)
        os.waitpid(pid, 0)
        self.assert_stopped(said.decode())


class MovedTest(QuickstartCase):
    def test_a_build_of_another_directory(self):
        with open(os.path.join(self.build, "CMakeCache.txt"), "w", encoding="utf-8") as file:
            file.write("CMAKE_HOME_DIRECTORY:INTERNAL=/home/somebody/moed\n")
        done = subprocess.run(["sh", self.script, "--once"], capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS)
        self.assertEqual(done.returncode, 1)
        self.assertIn("build/release was made for /home/somebody/moed", done.stderr)


class DocumentsTest(unittest.TestCase):
    def test_options_of_moectl_come_behind_its_command(self):
        listed = subprocess.run(["git", "ls-files", "*.md", "*.sh"], cwd=ROOT, capture_output=True, text=True)
        if listed.returncode != 0:
            self.skipTest("no checkout")
        for name in listed.stdout.split():
            with self.subTest(name), open(os.path.join(ROOT, name), encoding="utf-8") as file:
                wrong = re.findall(r"moectl --(?!version|man|completion|help)\S+", file.read())
                self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
