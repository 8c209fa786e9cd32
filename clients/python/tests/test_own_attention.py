"""Attention that users write by hand: projections under common names, masks, rotary positions, and three lines."""

import math

import torch
from torch import nn
from torch.nn import functional

import moed
from tests.export_case import ExportCase, trained_like

SIZE, POSITIONS = 8, 5


def rotated_by_halves(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Separate(nn.Module):
    """Grouped, causal, rotary positions from inv_freq, as in Llama."""

    def __init__(self, heads=4, kv_heads=2):
        super().__init__()
        self.num_heads, self.width = heads, SIZE // heads
        self.q_proj, self.o_proj = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(SIZE, kv_heads * self.width) for _ in range(2))
        self.repeats = heads // kv_heads
        self.register_buffer("inv_freq", 500.0 ** (-torch.arange(self.width // 2) / (self.width // 2)),
                             persistent=False)

    def forward(self, x, mask=None):
        rows, positions, _ = x.shape
        q, k, v = (layer(x).view(rows, positions, -1, self.width).transpose(1, 2)
                   for layer in (self.q_proj, self.k_proj, self.v_proj))
        angles = torch.outer(torch.arange(positions).float(), self.inv_freq).repeat(1, 2)
        q, k = (rotated_by_halves(part, angles.cos(), angles.sin()) for part in (q, k))
        k, v = (part.repeat_interleave(self.repeats, 1) for part in (k, v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.width) + (0 if mask is None else mask), -1) @ v
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Packed(nn.Module):
    """One matrix for all three, one after the other or by turns in every head; a norm before, as lucidrains has it."""

    def __init__(self, by_heads=False, norm=False):
        super().__init__()
        self.heads, self.by_heads = 2, by_heads
        self.norm = nn.LayerNorm(SIZE) if norm else nn.Identity()
        self.to_qkv = nn.Linear(SIZE, 3 * SIZE, bias=not norm)
        self.to_out = nn.Sequential(nn.Linear(SIZE, SIZE), nn.Dropout(0.1))

    def forward(self, x):
        rows, positions, _ = x.shape
        packed = self.to_qkv(self.norm(x))
        if self.by_heads:
            q, k, v = packed.view(rows, positions, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = packed.view(rows, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if hasattr(functional, "scaled_dot_product_attention"):
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        return self.to_out(mixed.transpose(1, 2).reshape(rows, positions, -1))


class Complex(nn.Module):
    """Turned as complex numbers from a table that the model hands in, as Meta's Llama does; one head's width apart."""

    def __init__(self):
        super().__init__()
        self.n_heads = 2
        self.wq, self.wk, self.wv = (nn.Linear(SIZE, 2 * 6, bias=False) for _ in range(3))
        self.wo = nn.Linear(12, SIZE, bias=False)

    def forward(self, x, freqs_cis, mask):
        rows, positions, _ = x.shape
        q, k, v = (layer(x).view(rows, positions, self.n_heads, 6) for layer in (self.wq, self.wk, self.wv))
        q, k = (torch.view_as_real(torch.view_as_complex(part.reshape(*part.shape[:-1], -1, 2))
                                   * freqs_cis[:, None, :]).flatten(3) for part in (q, k))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(6) + mask
        return self.wo(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2))


class Relative(nn.Module):
    """T5's: a number for every distance, learned by the first layer and handed to the next. Not scaled."""

    def __init__(self, first):
        super().__init__()
        self.n_heads = 2
        self.q, self.k, self.v, self.o = (nn.Linear(SIZE, SIZE, bias=False) for _ in range(4))
        self.distances = nn.Embedding(2 * POSITIONS, 2) if first else None

    def forward(self, x, position_bias=None):
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if position_bias is None:
            at = torch.arange(x.shape[1])
            position_bias = self.distances(at - at.unsqueeze(1) + POSITIONS).permute(2, 0, 1).unsqueeze(0)
        shares = torch.softmax(q @ k.transpose(2, 3) + position_bias, -1)
        return self.o((shares @ v).transpose(1, 2).flatten(2)), position_bias, shares


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Relative(True), Relative(False)

    def forward(self, x):
        mixed, bias, _ = self.first(x)
        return x + self.second(x + mixed, position_bias=bias)[0]


class Head(nn.Module):
    """One head, scaled by the size of a position: as in lectures on GPT."""

    def __init__(self):
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(SIZE, SIZE // 2, bias=False) for _ in range(3))
        self.register_buffer("tril", torch.tril(torch.ones(POSITIONS, POSITIONS)), persistent=False)

    def forward(self, x):
        shares = self.query(x) @ self.key(x).transpose(-2, -1) * SIZE ** -0.5
        shares = functional.softmax(shares.masked_fill(self.tril[:x.shape[1], :x.shape[1]] == 0, -math.inf), dim=-1)
        return shares @ self.value(x)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.proj = nn.ModuleList(Head() for _ in range(2)), nn.Linear(SIZE, SIZE)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class Slopes(Packed):
    """ALiBi's, in a buffer."""

    def __init__(self):
        super().__init__()
        at = torch.arange(POSITIONS).float()
        self.register_buffer("slopes", -(at - at.unsqueeze(1)).abs() * torch.tensor([0.5, 0.25]).reshape(2, 1, 1))

    def forward(self, x):
        q, k, v = self.to_qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        shares = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + self.slopes, -1)
        return self.to_out((shares @ v).transpose(1, 2).reshape(x.shape))


class Model(nn.Module):
    def __init__(self, attention, causal=False, table=None):
        super().__init__()
        self.norm, self.attention, self.head = nn.LayerNorm(SIZE), attention, nn.Linear(SIZE, 3)
        self.causal = causal
        if table is not None:
            self.register_buffer("table", table, persistent=False)

    def forward(self, x):
        given = [self.table] if hasattr(self, "table") else []
        if self.causal:
            given.append(torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1))
        return self.head((x + self.attention(self.norm(x), *given)).mean(1))


class Softplus(Packed):
    def forward(self, x):
        return functional.softplus(super().forward(x))


class OwnAttentionTest(ExportCase):
    def attention_of(self, model):
        """Exports, which compares the model with the checkpoint, and returns the layer."""
        moed.export(trained_like(model), torch.zeros(1, POSITIONS, SIZE), self.path)
        pending = list(self.config()["layers"])
        while pending:
            layer = pending.pop()
            if layer["op"] == "attention":
                return {key: value for key, value in layer.items() if key not in ("op", "name")}
            pending += layer.get("layers", [])

    def test_separate_projections(self):
        self.assertEqual(self.attention_of(Model(Separate(), causal=True)),
                         {"heads": 4, "kv_heads": 2, "causal": True, "rotary": {"dims": 2, "frequencies": [1.0],
                                                                                "interleaved": False}})
        self.assertEqual(self.attention_of(Model(Separate(2, 2)))["rotary"],
                         {"dims": 4, "theta": 500.0, "interleaved": False})

    def test_called_by_names(self):
        """As transformers' layers call theirs."""
        class Named(Model):
            def forward(self, x):
                mask = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)
                return self.head((x + self.attention(x=self.norm(x), mask=mask)).mean(1))
        self.assertTrue(self.attention_of(Named(Separate()))["causal"])

    def test_packed_projections(self):
        for by_heads in (False, True):
            for norm in (False, True):
                self.assertEqual(self.attention_of(Model(Packed(by_heads, norm))), {"heads": 2})

    def test_a_module_for_each_head(self):
        layer = self.attention_of(Model(Heads()))
        self.assertEqual((layer["heads"], layer["causal"], round(layer["scale"], 6)), (2, True, round(SIZE ** -0.5, 6)))

    def test_complex_numbers_from_a_table(self):
        angles = torch.outer(torch.arange(POSITIONS).float(), 100.0 ** (-torch.arange(3) / 3))
        layer = self.attention_of(Model(Complex(), True, torch.polar(torch.ones_like(angles), angles)))
        self.assertEqual(layer["rotary"], {"dims": 6, "theta": 100.0, "interleaved": True})
        self.assertEqual((layer["head_dim"], layer["causal"]), (6, True))

    def test_relative_positions(self):
        self.assertEqual(self.attention_of(Two()), {"heads": 2, "scale": 1.0, "result": "second"})
        biases = [values for name, values in self.tensors().items() if name.endswith("bias") and values.ndim == 3]
        self.assertEqual([values.shape for values in biases], 2 * [(2, POSITIONS, POSITIONS)])
        self.assertTrue((biases[0] == biases[1]).all())
        self.attention_of(Model(Slopes()))
        self.assertEqual([name for name in self.tensors() if name.endswith("attention.bias")], ["attention.bias"])

    def test_what_depends_on_the_row_is_no_position(self):
        class Shares(Two):
            def forward(self, x):
                mixed, _, shares = self.first(x)
                return x + self.second(x + mixed, position_bias=shares)[0]
        self.assert_refused(trained_like(Shares()), (POSITIONS, SIZE), "model.second: .*: a layer has one input")

    def test_three_lines(self):
        class Theirs(nn.Module):
            def __init__(self):
                super().__init__()
                self.ask, self.hold, self.give, self.mix = (nn.Linear(SIZE, SIZE) for _ in range(4))

            def forward(self, x):
                scores = self.ask(x) @ self.hold(x).transpose(1, 2) / 2
                return self.mix(torch.softmax(scores, -1) @ self.give(x))

        @moed.register_adapter(Theirs)
        def adapt(block):
            return moed.nn.Attention.of(block.ask, block.hold, block.give, block.mix, heads=1, scale=0.5)
        self.assertEqual(self.attention_of(Model(Theirs())), {"heads": 1, "scale": 0.5})

    def test_what_no_attention_explains(self):
        self.assert_refused(trained_like(Model(Softplus())), (POSITIONS, SIZE),
                            "model.attention: Softplus has projections to queries, keys and values, but no attention")
