"""moectl top on a terminal: the picture, keys, resizing, colours, signals; and its lines where there is none."""

import os
import re
import signal
import time
import unittest

import numpy as np

from support.http import Client
from support.models import Tiny, TwoLayers
from support.moectl import MOECTL, moectl, moectl_environment, needs_moectl
from support.screen import Program
from test_moectl import MoectlCase


@needs_moectl
class TopTest(MoectlCase):
    @staticmethod
    def models(directory):
        Tiny().write(os.path.join(directory, "tiny"))
        TwoLayers().write(os.path.join(directory, "two-layers"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rows = np.random.default_rng(6).normal(size=(90, 6)).astype(np.float32).tolist()
        assert cls.client.predict("two-layers", cls.rows).status == 200

    def top(self, *arguments, env=None, lines=40, columns=100):
        program = Program([MOECTL, "top", "--interval", "0.2", *arguments],
                          {**moectl_environment(self.server.url), **(env or {})}, lines, columns)
        self.addCleanup(program.close)
        return program

    def shares(self, program):
        """Of the first layer's experts, in their order on the screen."""
        return [float(share) for share in re.findall(r"^ +\d+ +\d+ +([\d.]+)%", program.screen.text, re.MULTILINE)][:4]

    def leave(self, program, how="q", status=0):
        if isinstance(how, str):
            program.type(how)
        else:
            os.kill(program.pid, how)
        self.assertEqual(program.wait(), status, program.screen.text)
        self.assertTrue(program.screen.modes.isdisjoint({"?1049"}), "the other screen is still there")
        self.assertEqual(program.screen.modes, {"?25", "?7"})

    def test_the_picture_moves(self):
        program = self.top("two-layers")
        text = program.await_text(r"second   \d+ rows, 3 of 5 experts", "rows [0-9]", "█")
        self.assertIn("(2 of 2)", text)
        self.assertIn("?1049", program.screen.modes)
        self.assertFalse(program.echoes)
        self.assertGreater(program.screen.colours, 0)
        before = int(re.search(r"second   (\d+) rows", text)[1])
        self.client.predict("two-layers", self.rows)
        program.await_text(rf"second   {before + 90} rows")
        program.await_text(r"rows 0.0/s")
        self.leave(program)

    def test_keys(self):
        program = self.top("tiny")
        program.await_text(r"tiny version 1  \(1 of 2\)")
        program.type("n")
        program.await_text(r"two-layers version 1  \(2 of 2\)")
        program.type("\t")
        program.await_text(r"tiny version 1  \(1 of 2\)")
        program.type("p")
        program.await_text(r"two-layers")
        program.type("w")
        program.await_text(r"window 1m")
        program.type("s")
        program.await_text("by load")
        deadline = time.monotonic() + 60
        while not (shares := self.shares(program)) or shares != sorted(shares, reverse=True):
            self.assertLess(time.monotonic(), deadline, program.screen.text)
            program.read(0.2)  # the screen may have been read in the middle of a picture
        program.type("h")
        program.await_text("Space +hold the picture")
        program.type("h ")
        program.await_text("HELD")
        self.leave(program)

    def test_the_busiest_model(self):
        """The first until one has rows; then that one, whatever comes for others."""
        server = self.start()
        self.addCleanup(server.kill)
        client = Client(server.port)
        self.addCleanup(client.close)
        program = Program([MOECTL, "top", "--interval", "0.1", "--url", server.url], moectl_environment())
        self.addCleanup(program.close)
        program.await_text(r"tiny version 1  \(1 of 2\)")
        self.assertEqual(client.predict("two-layers", self.rows).status, 200)
        program.await_text(r"two-layers version 1  \(2 of 2\)")
        for _ in range(2):
            self.assertEqual(client.predict("tiny", [[1, 2, 3, 4]] * 90).status, 200)
        self.assertEqual(client.predict("two-layers", self.rows[:7]).status, 200)
        program.await_text(r"two-layers version 1  \(2 of 2\)", r"second   97 rows")
        again = moectl("top", "--count", "1", url=server.url)
        self.assertIn(" tiny moe rows=180 ", again.stdout)
        self.leave(program)
        server.stop()

    def test_resizing_and_scrolling(self):
        program = self.top("two-layers", lines=40)
        program.await_text("first   ", "second   ")
        program.resize(8, 50)
        program.await_text("first   ")
        self.assertNotIn("second   ", program.screen.text)
        program.type("\033[6~\033[B" * 5)
        text = program.await_text("second   |gate entropy")
        self.assertNotIn("first   ", text)
        program.type("\033[H")
        program.await_text("first   ")
        program.resize(2, 20)
        program.await_text("moectl top")
        program.resize(1, 1)
        program.resize(40, 100)
        program.await_text("first   ", "second   ")
        self.leave(program)

    def test_no_colour(self):
        program = self.top("two-layers", env={"NO_COLOR": "1"})
        program.await_text("second   ")
        self.assertEqual(program.screen.colours, 0)
        self.leave(program)

    def test_signals_give_the_terminal_back(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                program = self.top("two-layers")
                program.await_text("second   ")
                self.leave(program, number)

    def test_stop_and_continue(self):
        program = self.top("two-layers")
        program.await_text("second   ")
        self.assertTrue(program.keeps_output)  # else a character may be cut
        program.type("\x1a")
        deadline = time.monotonic() + 60
        while "?1049" in program.screen.modes and time.monotonic() < deadline:
            program.read(0.1)
        self.assertTrue(program.echoes)
        self.assertTrue(os.WIFSTOPPED(os.waitpid(program.pid, os.WUNTRACED)[1]))
        os.kill(program.pid, signal.SIGCONT)
        while "?1049" not in program.screen.modes and time.monotonic() < deadline:
            program.read(0.1)
        program.await_text("second   ")
        self.leave(program)

    def test_a_server_that_is_gone_is_told_and_keys_work(self):
        server = self.start()
        program = Program([MOECTL, "top", "tiny", "--interval", "0.1", "--url", server.url], moectl_environment())
        self.addCleanup(program.close)
        program.await_text("tiny version")
        server.stop()
        program.await_text("no answer")
        self.leave(program)

    def test_lines_without_a_terminal(self):
        done = moectl("top", "two-layers", "--interval", "0.1", "--count", "2", url=self.server.url)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertNotIn("\033", done.stdout)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\dT\S+ two-layers first rows=\d+ imbalance=")
        self.assertIn("rows_per_second=0.0", lines[3])

    def test_nothing_to_show(self):
        self.assertIn("404: unknown model 'nope'", self.moectl("top", "nope", status=1))
        self.assertIn("no answer", moectl("top", url="http://127.0.0.1:1").stderr)


if __name__ == "__main__":
    unittest.main()
