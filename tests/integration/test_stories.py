"""deploy/ROUTING.md shows what its command prints, and the command's checks hold."""

import os
import re
import subprocess
import sys
import unittest

from support.fashion import DIRECTORY
from support.server import BINARY, ROOT, SANITIZER_WORDS, environment


@unittest.skipUnless(os.path.isdir(DIRECTORY), f"{DIRECTORY} is missing: apt-get install dataset-fashion-mnist")
class StoriesTest(unittest.TestCase):
    def test_the_page_is_what_happens(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "deploy", "stories", "replay.py"), "--moed", BINARY],
                              env=environment(), capture_output=True, text=True, timeout=600, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIsNone(SANITIZER_WORDS.search(done.stdout + done.stderr))
        with open(os.path.join(ROOT, "deploy", "ROUTING.md"), encoding="utf-8") as file:
            page = file.read()
        shown = {line.strip() for line in page.splitlines()}
        printed = {line.strip() for line in done.stdout.splitlines() if line.startswith("    ")}
        self.assertEqual(printed - shown, set())
        self.assertGreater(len(printed), 50)
        for picture in re.findall(r"\]\((stories/[^)]*)\)", page):
            self.assertTrue(os.path.exists(os.path.join(ROOT, "deploy", picture)), picture)


if __name__ == "__main__":
    unittest.main()
