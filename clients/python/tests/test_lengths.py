"""Rows of different length: whatever padding holds, answers and routing are the same, in the package and the engine."""

import torch
from torch import nn

import moed
from moed.attention import Attention
from moed.functions import Max
from moed.layers import Gate, MoE
from moed.modules import GLU, Mean, Reshape, RMSNorm, Select, SelfAttention, Sum
from moed.multitask import Input, MultiTask, Output
from moed.nn import encoder_block
from tests.export_case import ExportCase, routings, trained_like

ENTRIES, SIZE = 5, 8


def experts(**policy):
    return MoE([nn.Sequential(GLU(SIZE, 4), nn.Linear(4, SIZE)) for _ in range(4)],
               Gate(nn.Linear(SIZE, 4), top_k=2, normalize="sum", **policy), "positions")


def of_rows(layers, outputs=None, **settings):
    inputs = {"n": Input((1,), categories=ENTRIES + 1), "x": Input((ENTRIES, SIZE), length="n", **settings)}
    return MultiTask(inputs, layers, outputs or {"y": Output()})


def rows_of(filler):
    """Every length, with `filler` as padding."""
    counts = torch.tensor([[0], [1], [2], [3], [4], [5], [5]])
    x = torch.randn(len(counts), ENTRIES, SIZE, generator=torch.Generator().manual_seed(1))
    for row, count in zip(x, counts):
        row[int(count):] = filler
    return {"n": counts, "x": x}


class LengthsTest(ExportCase):
    def assert_served(self, model):
        """Padding is invisible; export compares with the engine; what is loaded is the same."""
        trained_like(model)
        with torch.no_grad():
            first = model(rows_of(0.0))
            chosen = [routing.experts for routing in routings(model)]
            for filler in (1.0, -1e30, float("nan")):
                again = model(rows_of(filler))
                self.assertTrue(all(torch.equal(again[name], first[name]) for name in first))
                self.assertTrue(all(torch.equal(new.experts, old) for new, old in zip(routings(model), chosen)))
            moed.export(model, None, self.path)
            loaded = moed.load(self.path)(rows_of(7.0))
        loaded = loaded if isinstance(loaded, dict) else {"y": loaded}
        for name, values in first.items():
            torch.testing.assert_close(loaded[name], values, rtol=1e-5, atol=1e-5)
        return first

    def test_pools(self):
        for pool in (Mean(0), Sum(-2), Max(0), Select(0), Select(-1)):
            with self.subTest(pool):
                answers = self.assert_served(of_rows(nn.Sequential(nn.Linear(SIZE, 3), nn.Tanh(), pool)))
                self.assertEqual(answers["y"][0].tolist(), [0, 0, 0])

    def test_a_row_alone_is_as_its_own_entries(self):
        model = trained_like(of_rows(nn.Sequential(encoder_block(SIZE, 2, experts()), Mean(0))))
        rows = rows_of(3.0)
        with torch.no_grad():
            got = model(rows)["y"]
            for index in range(1, 6):
                own = model.layers(rows["x"][index:index + 1, :int(rows["n"][index])])
                torch.testing.assert_close(got[index:index + 1], own, rtol=1e-5, atol=1e-5)

    def test_attention_and_experts(self):
        for attention in (SelfAttention(SIZE, 2), Attention(SIZE, 2, 1, causal=True, rotary={}, sinks=True),
                          Attention(SIZE, 2, window=2, qk_norm="head")):
            block = nn.Sequential(moed.nn.Residual(RMSNorm(SIZE), attention), moed.nn.Residual(experts()))
            answers = self.assert_served(of_rows(block, {"states": Output(), "mean": Output(Mean(0))}))
            self.assertEqual(answers["states"][2, 2:].abs().max(), 0)

    def test_padding_takes_no_place(self):
        for settings in ({"rows": 1}, {"order": "score"}, {"rows": 2, "round": "up"}):
            model = of_rows(nn.Sequential(moed.nn.Residual(experts(capacity={"factor": 1.0, **settings})), Mean(0)))
            if "rows" in settings:
                self.assert_served(model)
            (routing,) = routings(trained_like(model)) if model(rows_of(0.0)) else ()
            self.assertEqual(routing.experts.reshape(7, ENTRIES, 2)[1, 1:].unique().tolist(), [-1])

    def test_histories_beside_numbers(self):
        inputs = {"numbers": Input((3,)), "seen": Input((1,), categories=5),
                  "films": Input((4,), categories=9, length="seen", layers=nn.Sequential(nn.Embedding(9, 6), Mean(0)))}
        model = trained_like(MultiTask(inputs, nn.Linear(9, 2), {"y": Output()}))
        moed.export(model, None, self.path)
        self.assertEqual([entry.get("length") for entry in self.config()["inputs"]], [None, None, "seen"])

    def test_categories_into_the_model(self):
        words = Input((4,), categories=9, length="n", layers=nn.Embedding(9, SIZE))
        model = trained_like(MultiTask({"ids": words, "n": Input((1,), categories=5)},
                                       nn.Sequential(experts(), Mean(0)), {"y": Output()}))
        moed.export(model, None, self.path)
        self.assertEqual(self.config()["inputs"][0]["layers"][0]["op"], "embedding")

    def test_it_trains(self):
        model = of_rows(nn.Sequential(encoder_block(SIZE, 2, experts()), Max(0))).train()
        model(rows_of(1.0))["y"].sum().backward()
        self.assertTrue(all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters()))

    def test_refusals(self):
        for layers, message in (
                (nn.Flatten(), "flatten would see the padding"),
                (nn.Sequential(Reshape(SIZE, ENTRIES)), "reshape would"),
                (nn.LayerNorm((ENTRIES, SIZE)), "layer_norm would see"), (Select(2), "entry 2 may be padding"),
                (MoE([nn.Linear(SIZE, 2)] * 2, Gate(nn.Linear(SIZE, 2))), "one axis|routes rows would see"),
                (nn.TransformerEncoderLayer(SIZE, 2, batch_first=True), "not known to leave padding alone")):
            with self.subTest(message):
                self.assert_refused(of_rows(layers), None, message)
        for settings, message in (({"length": "m"}, "no input is called 'm'"), ({"length": "n"}, "is not Input")):
            with self.assertRaisesRegex(ValueError, message):
                MultiTask({"x": Input((7, 2), **settings), "n": Input((1,), categories=9)}, nn.Linear(2, 2), {})
