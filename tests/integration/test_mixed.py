"""Some seconds of tests/soak/mixed.py: everything at once, and nothing lost, doubled or otherwise than on a quiet server."""

import os
import subprocess
import sys
import unittest

from support.server import ROOT, RUNNING_URL


@unittest.skipIf(RUNNING_URL, "needs servers of its own; MOED_SERVER_URL names a running one")
class MixedTest(unittest.TestCase):
    def test_everything_at_once(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "soak", "mixed.py"), "--seconds", "4"],
                              capture_output=True, text=True, timeout=600, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
