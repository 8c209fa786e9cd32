"""The weight file: layout, rounding, and what a damaged file says."""

import json
import os
import tempfile
import unittest

import numpy as np

from moed import safetensors


class SafetensorsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "model.safetensors")
        rng = np.random.default_rng(0)
        self.tensors = {"b.weight": rng.normal(size=(3, 5)).astype("float32"), "a.bias": np.float32([1, -2, 0.1])}

    def write(self, dtype="F32"):
        safetensors.write(self.path, self.tensors, dtype)
        with open(self.path, "rb") as file:
            return file.read()

    def test_layout(self):
        content = self.write()
        size = int.from_bytes(content[:8], "little")
        self.assertEqual(size % 8, 0)
        header = json.loads(content[8:8 + size])
        self.assertEqual(list(header), ["b.weight", "a.bias"])
        self.assertEqual(header["a.bias"], {"dtype": "F32", "shape": [3], "data_offsets": [60, 72]})
        self.assertEqual(content[8 + size:], self.tensors["b.weight"].tobytes() + self.tensors["a.bias"].tobytes())

    def test_the_same_tensors_give_the_same_bytes(self):
        self.assertEqual(self.write(), self.write())

    def test_f32_comes_back_bit_for_bit(self):
        self.write()
        for name, values in safetensors.read(self.path).items():
            np.testing.assert_array_equal(values, self.tensors[name])

    def test_f16_is_rounded_once(self):
        self.write("F16")
        restored = safetensors.read(self.path)["b.weight"]
        np.testing.assert_array_equal(restored, self.tensors["b.weight"].astype("float16"))

    def test_bf16_rounds_to_nearest_even(self):
        # 1 + 2^-8 is halfway between 1 and 1 + 2^-7; 1 + 3 * 2^-8 halfway above: both go to the even neighbour.
        self.tensors = {"x": np.float32([1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -1.5])}
        self.write("BF16")
        np.testing.assert_array_equal(safetensors.read(self.path)["x"], [1, 1 + 2 ** -6, 1 + 2 ** -7, -1.5])

    def test_overflow_is_refused(self):
        self.tensors = {"big": np.float32([70000])}
        with self.assertRaisesRegex(safetensors.FormatError, "big: a value of magnitude 7e\\+04 does not fit into F16"):
            self.write("F16")

    def test_damaged_files_are_refused(self):
        whole = self.write()
        size = int.from_bytes(whole[:8], "little")
        for name, content in {"empty": b"", "header too long": (1 << 40).to_bytes(8, "little") + whole[8:],
                              "data cut": whole[:-4], "no JSON": whole[:8] + b"x" * size,
                              "foreign dtype": whole.replace(b'"F32"', b'"I64"'),
                              "list": (8).to_bytes(8, "little") + b"[      ]"}.items():
            with self.subTest(name), self.assertRaises(safetensors.FormatError):
                with open(self.path, "wb") as file:
                    file.write(content)
                safetensors.read(self.path)

    def test_sizes_are_whole_and_their_product_does_not_wrap(self):
        for shape in ([1 << 32, 1 << 32], [0, -1], [-1, -3], [3.0], [True, 3], "3", [[3]], None):
            data = bytes(12 if shape in ([-1, -3], [3.0], [True, 3]) else 0)
            header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
            with open(self.path, "wb") as file:
                file.write(len(header).to_bytes(8, "little") + header + data)
            with self.subTest(shape), self.assertRaises(safetensors.FormatError):
                safetensors.read(self.path)


if __name__ == "__main__":
    unittest.main()
