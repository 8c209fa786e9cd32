"""Modules with a forward() of their own: what becomes layers, and what is refused."""

import unittest
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from moed import modules
from moed.fx_translation import Translation
from moed.layers import Gate, MoE
from tests.export_case import ExportCase, export, named


class Block(nn.Module):
    """A block as people write it."""

    def __init__(self, size):
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.up = nn.Linear(size, 2 * size)
        self.down = nn.Linear(2 * size, size)

    def forward(self, x):
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.block = Block(16)
        self.experts = MoE([Block(16) for _ in range(3)], Gate(nn.Linear(16, 3), top_k=2))
        self.head = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn(self.conv(x))), 2)
        x = x.view(x.size(0), -1)
        x = functional.dropout(self.block(x), 0.1, training=self.training)
        x = x + self.experts(x)
        return torch.softmax(self.head(x), dim=-1)


class Vision(nn.Module):
    """A vision transformer in PyTorch's own words."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions
        y = self.norm(x)
        x = self.attention(y, y, y, need_weights=False)[0] + x
        x = x + self.down(functional.silu(self.gate(x)) * self.up(x))
        return x[:, 0]


def calling(function, **parts):
    """A module whose forward is function(self, x)."""
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x):
            return function(self, x)
    return Custom()


class RoundTripTest(ExportCase):
    def test_a_network(self):
        self.assert_returns(Network(), (1, 4, 4))
        self.assertEqual(self.config()["format_version"], 1)
        names = set(self.tensors())
        self.assertLess({"conv.weight", "block_up.weight", "experts.experts.0.up.bias", "head_3.weight"}, names)
        self.assertEqual([layer["op"] for layer in self.config()["layers"]],
                         ["conv2d", "batch_norm", "relu", "max_pool2d", "reshape", "residual", "residual", "linear",
                          "relu", "linear", "softmax"])

    def test_a_vision_transformer(self):
        self.assert_returns(Vision(), (1, 4, 4))
        self.assertEqual([layer["op"] for layer in self.config()["layers"]],
                         ["conv2d", "reshape", "transpose", "class_token", "position_embedding", "residual", "residual",
                          "select"])

    def test_within_sequentials_gates_and_experts(self):
        gate = Gate(calling(lambda self, x: self.out(x.flatten(1)) * 0.5, out=nn.Linear(4, 2)))
        self.assert_returns(named(block=Block(4), moe=MoE([Block(4), Block(4)], gate)), (4,))
        self.assertIn("block_norm.weight", self.tensors())

    def test_functions(self):
        linear = nn.Linear(6, 6)
        for function, shape in (
                (lambda self, x: self.f(x).relu().tanh().sigmoid(), (6,)),
                (lambda self, x: functional.gelu(self.f(x), approximate="tanh") ** 3, (6,)),
                (lambda self, x: functional.silu(self.f(x)) / 4 * 3.0, (6,)),
                (lambda self, x: self.f(x).mean(1).unsqueeze(-1).squeeze(2), (4, 6)),
                (lambda self, x: self.f(x).sum(dim=(1, 2)), (4, 3, 6)),
                (lambda self, x: self.f(x).permute(0, 2, 1).reshape(-1, 24), (4, 6)),
                (lambda self, x: self.f(x)[:, :, -1], (4, 6)),
                (lambda self, x: self.f(self.f(x)), (6,)),
                (lambda self, x: functional.avg_pool2d(self.f(x), 2, stride=1), (2, 6, 6))):
            with self.subTest(shape=shape):
                self.assert_returns(calling(function, f=linear), shape)

    def test_functions_of_format_3(self):
        for function in (
                lambda self, x: functional.elu(self.f(x), 0.5) + functional.leaky_relu(x, 0.2),
                lambda self, x: functional.softplus(self.f(x)) - functional.mish(x),
                lambda self, x: functional.hardswish(self.f(x)) * functional.relu6(x),
                lambda self, x: self.f(x).clamp(min=-0.5, max=0.5).exp(),
                lambda self, x: (functional.softplus(self.f(x)).sqrt() + 1).log(),
                lambda self, x: functional.log_softmax(self.f(x), dim=-1) / 3 - 0.5,
                lambda self, x: functional.normalize(self.f(x), dim=-1) * torch.arange(6.0),
                lambda self, x: 1 - self.f(x).square() + -x,
                lambda self, x: torch.cat([self.f(x), x[:, 1:3]], dim=1).reshape(-1, 2, 4).amax(1),
                lambda self, x: torch.stack([self.f(x), x], dim=1).max(dim=1)[0],
                lambda self, x: torch.stack([self.f(x), x], dim=-1)[..., 0] @ torch.eye(6),
                lambda self, x: sum(part.sum(1, keepdim=True) for part in self.f(x).chunk(3, dim=-1)),
                lambda self, x: functional.layer_norm(functional.linear(x, self.f.weight, self.f.bias), (6,))):
            self.assert_returns(calling(function, f=nn.Linear(6, 6)), (6,))

    def test_values_taken_apart(self):
        def reshape(module, x):
            rows, positions, size = x.shape
            return module.f(x).reshape(rows, positions * size)

        def attend(module, x):
            attended, _ = module.f(x, x, x)
            return attended
        self.assert_returns(calling(reshape, f=nn.Linear(4, 4)), (3, 4))
        self.assert_returns(calling(attend, f=nn.MultiheadAttention(4, 2, batch_first=True)), (3, 4))

    def test_branches(self):
        """A projection shortcut, squeeze and excite, attention beside an MLP, and a value that is read three times."""
        def shortcut(module, x):
            out = module.c2(functional.relu(module.c1(x)))
            out += module.short(x)
            return functional.relu(out)
        self.assert_returns(nn.Sequential(nn.Conv2d(2, 3, 1), calling(
            shortcut, c1=nn.Conv2d(3, 4, 3, padding=1), c2=nn.Conv2d(4, 4, 1), short=nn.Conv2d(3, 4, 1))), (2, 4, 4))
        self.assertIn({"op": "add", "input": "1_c2", "of": ["1_short"]}, self.config()["layers"])
        self.assert_returns(calling(
            lambda self, x: x * torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True))))),
            down=nn.Conv2d(4, 2, 1), up=nn.Conv2d(2, 4, 1)), (4, 5, 5))
        self.assert_returns(calling(
            lambda self, x: x + self.attention(x, x, x)[0] + self.mlp(x), mlp=nn.Linear(8, 8),
            attention=nn.MultiheadAttention(8, 2, batch_first=True)), (3, 8))
        self.assert_returns(calling(lambda self, x: (self.f(x) * x + self.f2(x)) * torch.sigmoid(self.f2(x)),
                                    f=nn.Linear(4, 4), f2=nn.Identity()), (4,))

    def test_branches_in_experts_and_residuals(self):
        def expert(module, x):
            gate, up = module.f(x).chunk(2, dim=-1)
            gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
            return module.down((up + 1) * gate * torch.sigmoid(gate * 1.702))
        experts = [calling(expert, f=nn.Linear(4, 12), down=nn.Linear(6, 4)) for _ in range(3)]
        moe = MoE(experts, Gate(nn.Linear(4, 3), top_k=2))
        self.assert_returns(named(moe=moe, block=modules.Residual(nn.Sequential(nn.ReLU(), experts[0]))), (4,))

    def test_norms_written_out(self):
        class Norm(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(6))

            def forward(self, x):
                dtype = x.dtype
                x = x.to(torch.float32)
                x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
                return self.weight * x.to(dtype)
        self.assert_returns(nn.Sequential(nn.Linear(6, 6), Norm()), (6,))
        self.assertEqual([layer["op"] for layer in self.config()["layers"]], ["linear", "rms_norm"])

    def test_any_gated_linear_unit(self):
        for function in (lambda self, x: self.b(x) * functional.gelu(self.a(x)),
                         lambda self, x: self.act(self.a(x)) * self.b(x)):
            self.assert_returns(calling(function, a=nn.Linear(4, 6), b=nn.Linear(4, 6), act=nn.Sigmoid()), (4,))
            self.assertEqual([layer["op"] for layer in self.config()["layers"]], ["glu"])

    def test_a_subclass_of_sequential(self):
        class Doubled(nn.Sequential):
            def forward(self, x):
                return 2 * super().forward(x)
        self.assert_returns(named(twice=Doubled(nn.Linear(4, 4), nn.ReLU())), (4,))
        self.assertEqual(self.config()["layers"][-1], {"op": "scale", "value": 2.0})

    def test_many_sums_look_at_each_call_a_few_times(self):
        def forward(self, x):
            for number in range(12):
                x = getattr(self, f"long{number}")(x) + getattr(self, f"short{number}")(x)
            return x
        layers = {f"{way}{number}": nn.Linear(4, 4) for way in ("long", "short") for number in range(12)}
        with mock.patch.object(Translation, "entry", autospec=True, side_effect=Translation.entry) as entry:
            self.assert_returns(calling(forward, **layers), (4,))
        self.assertLess(entry.call_count, 12 * 3 * 10)


class RefusalTest(ExportCase):
    def test_what_is_no_layer(self):
        a, b = nn.Linear(4, 4), nn.Linear(4, 4)
        for function, message in (
                (lambda self, x: self.a(x) if x.sum() > 0 else self.b(x), "model: Custom.forward cannot be followed"),
                (lambda self, x: sum(self.a(x)), r"model: getitem\(a, 0\): only entries and slices of a row's axes"),
                (lambda self, x: self.missing(x), "model: Custom.forward cannot be followed: .*no attribute 'missing'"),
                (lambda self, x: self.a(x) / 0, r"model: truediv\(a, 0\): division by zero"),
                (lambda self, x: torch.sort(self.a(x))[0], r"model: getitem\(sort, 0\): no layer of a check"),
                (lambda self, x: torch.sin(self.a(x)), r"model: sin\(a\): no layer of a checkpoint does that"),
                (lambda self, x: self.a(x) ** 1.5, r"model: pow\(a, 1.5\): only the second and the third power"),
                (lambda self, x: self.a(x).mean(), r"model: mean\(a\): it needs its dim"),
                (lambda self, x: self.a(x).sum(dim=0), r"model: sum\(a, dim=0\): only single axes of a row"),
                (lambda self, x: self.a(x).view(-1, 2), r"model: view\(a, -1, 2\): only within a row"),
                (lambda self, x: functional.dropout(self.a(x)), r"model: dropout\(a, .*: it drops out in evaluation"),
                (lambda self, x: torch.softmax(self.a(x), 1, torch.float64), "softmax needs its dim, and no dtype"),
                (lambda self, x: self.a(x).double(), r"model: double\(a\): no layer of a checkpoint"),
                (lambda self, x: self.a(x).half(), r"model: half\(a\): no layer of a checkpoint"),
                (lambda self, x: self.a(x).to(torch.float16).float(), "a checkpoint computes in float32, not"),
                (lambda self, x: self.a(x) * (x != 0).float(), r"padding: the input says .*moed.nn.Input\(..., length"),
                (lambda self, x: self.a(x).sort(1).values, r"model: getattr\(sort, values\): no layer of a check"),
                (lambda self, x: self.a(x)[:, 3:1], r"model: getitem\(a, .*only slices without a step"),
                (lambda self, x: self.a(x)[1:], r"model: getitem\(a, .*only entries and slices of a row's axes"),
                (lambda self, x: self.a(x) + self.b(x).unsqueeze(1), "whose rows have the same number of axes"),
                (lambda self, x: self.a(x) + torch.ones(2, 1, 1), r"a parameter of shape \[2, 1, 1\] makes"),
                (lambda self, x: (self.a(x), self.b(x)), "model: gives a tuple of 2; name its entries"),
                (lambda self, x: self.act(self.a(x)), "model.act: RReLU has no op"),
                (lambda self, x: self.a(x[:, :3]), r"accept rows of shape \[3\]: .*mat1.*4x4\) .*py:\d+\)$")):
            with self.subTest(message):
                self.assert_refused(calling(function, a=a, b=b, act=nn.RReLU()), (4,), message)

    def test_the_callers_random_numbers_are_left_alone(self):
        module = calling(lambda self, x: torch.sigmoid(self.a(x)) * self.b(x), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
        state = torch.get_rng_state()
        export(module, self.path, (4,))
        self.assertTrue(torch.equal(torch.get_rng_state(), state))

    def test_several_arguments(self):
        class Two(nn.Module):
            def forward(self, x, mask):
                return x * mask
        self.assert_refused(nn.Sequential(Two()), (4,), r"model.0: Two.forward takes \['x', 'mask'\]")

    def test_what_depends_on_the_batch(self):
        module = calling(lambda self, x: self.a(x) * x.shape[0], a=nn.Linear(4, 4))
        self.assert_refused(module, (4,), "model: Custom computes something else than the layers it calls")

    def test_a_tensor_changed_in_place_and_used_again(self):
        module = calling(lambda self, x: x + self.a(functional.relu(x, inplace=True)), a=nn.Linear(4, 4))
        self.assert_refused(module, (4,), "model: Custom computes something else")

    def test_a_mistake_that_the_weights_hide(self):
        """With these weights nothing is below zero, so the change in place changes nothing; with others it does."""
        def forward(module, x):
            y = module.b(x)
            return y + module.a(functional.relu(y, inplace=True))
        module = calling(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
        nn.init.zeros_(module.b.weight)
        nn.init.ones_(module.b.bias)
        self.assert_refused(module, (4,), "model: Custom computes something else")

    def test_attention_of_other_things(self):
        attention = nn.MultiheadAttention(4, 2, batch_first=True)
        other = nn.Linear(4, 4)
        for function, message in (
                (lambda self, x: self.f(x, self.g(x), x)[0], "model.f: attention of one thing to another"),
                (lambda self, x: self.f(x, x, x)[1], "model.f: only the first result of attention")):
            self.assert_refused(calling(function, f=attention, g=other), (3, 4), message)
        late = nn.MultiheadAttention(4, 2)
        self.assert_refused(calling(lambda self, x: self.f(x, x, x)[0], f=late), (3, 4), "model.f: batch_first is off")


if __name__ == "__main__":
    unittest.main()
