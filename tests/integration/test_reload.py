"""SIGHUP: models come, change and go while requests are answered, and what was counted is still counted."""

import os
import re
import shutil
import signal
import threading
import time

from support.http import Client
from support.models import Tiny
from support.prometheus import Metrics
from support.server import ServerCase
from support.threads import Background

ROW = [[1, 2, 3, 4]]
PATIENCE_SECONDS = 60


class ReloadCase(ServerCase):
    options = {"log_level": "info"}

    @staticmethod
    def models(directory):
        Tiny(seed=1).write(os.path.join(directory, "tiny"))

    def setUp(self):
        for name in os.listdir(self._directory.name):
            shutil.rmtree(os.path.join(self._directory.name, name))
        self.models(self._directory.name)
        self.server = self.start()
        self.addCleanup(self.server.kill)
        self.client = self.new_client()

    def path(self, *parts):
        return os.path.join(self._directory.name, *parts)

    def write(self, name, seed):
        """A model that appears all at once, as deployments should have it."""
        Tiny(seed).write(self.path(".new"))
        shutil.rmtree(self.path(".old"), ignore_errors=True)
        if os.path.exists(self.path(name)):
            os.rename(self.path(name), self.path(".old"))
        os.rename(self.path(".new"), self.path(name))

    def count(self, pattern):
        return len(re.findall(pattern, self.server.log()))

    def wait_for(self, pattern, count=1):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.count(pattern) < count:
            self.assertLess(time.monotonic(), deadline, f"no {pattern} in:\n{self.server.log()[-3000:]}")
            time.sleep(0.002)

    def reload(self, pattern="event=reloaded"):
        seen = self.count(pattern)
        self.server.signal(signal.SIGHUP)
        self.wait_for(pattern, seen + 1)

    def answer(self, model="tiny"):
        """What is served now, by a connection whose loop has seen the newest catalog."""
        answer = self.client.predict(model, ROW)
        return answer.json["predictions"] if answer.status == 200 else answer.status

    def wait_for_answer(self, model, expected):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.answer(model) != expected:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)


class ReloadTest(ReloadCase):
    def test_labels_and_the_default_version_move(self):
        """Without any version being loaded again."""
        for version, seed in (("1", 1), ("2", 2)):
            Tiny(seed).write(self.path("multi", version))
        self.reload()
        first, second = (self.client.predict("multi", ROW, version).json for version in "12")
        for serving, label, default in (('{"labels": {"stable": 1}, "default_version": 1}', first, first),
                                        ('{"labels": {"stable": 2}}', second, second),
                                        ("{}", None, second)):
            with open(self.path("multi", "serving.json"), "w", encoding="ascii") as file:
                file.write(serving)
            self.reload()
            with Client(self.server.port) as client:
                by_label = client.predict("multi", ROW, "stable")
                self.assertEqual(by_label.json if by_label.status == 200 else None, label)
                self.assertEqual(client.predict("multi", ROW).json, default)

    def test_models_come_change_and_go(self):
        before = self.answer()
        self.write("tiny", 2)
        self.write("other", 1)
        self.reload()
        self.wait_for_answer("other", before)
        self.assertNotEqual(self.answer(), before)
        shutil.rmtree(self.path("other"))
        self.reload()
        self.wait_for_answer("other", 404)
        self.wait_for("event=model_freed message=.other version 1")
        self.server.stop()

    def test_a_model_that_has_not_changed_is_not_loaded_again(self):
        self.reload()
        self.assertEqual(self.count("event=model_loaded"), 1)
        self.server.stop()

    def test_the_loader_gives_way(self):
        """One thread has a lower priority than those that serve."""
        self.reload()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        threads = [int(thread) for thread in os.listdir(f"/proc/{self.server.process.pid}/task")]
        nice = sorted(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads)
        self.assertEqual(nice, [own] * (len(nice) - 1) + [min(19, own + 5)])
        self.server.stop()

    def test_a_bad_model_harms_nobody(self):
        before = self.answer()
        Tiny(3).write(self.path("good"))
        Tiny(3).write(self.path("bad"))
        os.truncate(self.path("bad", "model.safetensors"), 10)
        with open(self.path("tiny", "config.json"), "w", encoding="utf-8") as file:
            file.write("{")
        self.reload()
        self.assertEqual(self.count("level=error event=model_failed message=.*bad"), 1)
        self.assertEqual(self.count("level=error event=model_failed message=.*tiny"), 1)
        self.wait_for_answer("bad", 503)
        self.assertNotEqual(self.answer("good"), 404)
        self.assertEqual(self.answer(), before)
        self.server.stop()

    def test_an_empty_repository_changes_nothing(self):
        shutil.rmtree(self.path("tiny"))
        self.reload("level=error event=reload_failed")
        self.assertNotEqual(self.answer(), 404)
        self.server.stop()

    def test_statistics_survive(self):
        for _ in range(7):
            self.answer()
        self.write("tiny", 2)
        self.reload()
        self.wait_for("event=model_freed")
        for _ in range(5):
            self.answer()
        metrics = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(metrics.value("moed_rows_total", model="tiny", version="1"), 12)
        routing = self.client.get("/v2/models/tiny/routing").json
        self.assertEqual(routing["layers"][0]["rows"], 12)
        self.server.stop()


class UnderLoadTest(ReloadCase):
    options = {"log_level": "info", "loops": 3}
    swaps = 1000

    def test_a_thousand_swaps_lose_nothing(self):
        ended = threading.Event()

        def ask(number):
            answered = 0
            with Client(self.server.port) as client:
                while not ended.is_set():
                    rows = ROW * (1 + number * 20)  # computed where it is read, and in batches
                    answer = client.predict("tiny", rows)
                    self.assertEqual((answer.status, len(answer.json["predictions"])), (200, len(rows)))
                    answered += len(rows)
            return answered

        load = Background(6, ask)
        try:
            for swap in range(self.swaps):
                os.utime(self.path("tiny", "config.json"), ns=(swap, swap))
                self.server.signal(signal.SIGHUP)
                self.wait_for_line("event=reloaded")
        finally:
            ended.set()
        rows = sum(load.join())
        self.assertEqual(self.count("event=model_loaded"), 1 + self.swaps)
        metrics = Metrics(self.client.get("/metrics").body.decode())
        self.assertEqual(metrics.value("moed_rows_total", model="tiny", version="1"), rows)
        self.wait_for("event=model_freed", self.swaps)
        self.server.stop()

    def wait_for_line(self, words):
        """As wait_for(), reading only what is new of a log that grows large."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            text = os.pread(self.server._log.fileno(), 1 << 20, self._seen)
            found = text.find(words.encode())
            if found >= 0:
                self._seen += found + len(words)
                return
            self._seen += max(0, len(text) - len(words))
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def setUp(self):
        super().setUp()
        self._seen = 0


if __name__ == "__main__":
    import unittest
    unittest.main()
