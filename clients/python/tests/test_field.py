"""The rows of the table in PORTING.md that need no package; all of them by `python3 -m tests.field`."""

import unittest
from unittest import mock

import moed
from moed import engine
from tests import field


class FieldTest(unittest.TestCase):
    def test_restated_systems(self):
        with mock.patch.object(engine, "find", lambda: None):  # the command asks the engine
            for row in (*field.PAPERS, *field.RESTATED):
                with self.subTest(row.system):
                    outcome = field.run(row, None)
                    self.assertEqual(bool(outcome.refusal), row.how == "refused", outcome)
                    if not outcome.refusal:
                        self.assertLess(outcome.difference, 1e-5)

    def test_a_wrong_adapter_is_found(self):
        row = field.RESTATED[0]._replace(adapter=field.saying(top_k=2))
        with mock.patch.object(engine, "find", lambda: None), self.assertRaises(moed.ExportError):
            field.run(row, None)
