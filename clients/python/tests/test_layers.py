"""The gate's policy and the mixture against formulas written out in numpy, row by row."""

import unittest
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from moed import modules
from moed.layers import AttentiveGate, Gate, MoE, MultiGateMoE


def softmax(values):
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def reference_route(logits, score, top_k, normalize, bias, scale):
    """(experts, weights) of one row."""
    scores = {"softmax": softmax, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "none": lambda v: v}[score](logits)
    keys = scores if bias is None else scores + bias
    chosen = sorted(range(len(logits)), key=lambda i: (-keys[i], i))[:top_k]
    weights = scores[chosen]
    if normalize == "sum":
        weights = weights / weights.sum()
    elif normalize == "softmax":
        weights = softmax(logits[chosen])
    return chosen, weights * scale


def fixed_gate(**policy):
    """A gate whose input is its logits."""
    return Gate(nn.Identity(), **policy)


class GateTest(unittest.TestCase):
    def test_policies_follow_the_formulas(self):
        rng = np.random.default_rng(1)
        logits = rng.normal(size=(20, 6))
        for score in ("softmax", "sigmoid", "none"):
            for normalize in ("none", "sum", "softmax"):
                for bias in (None, rng.normal(size=6).astype("float32")):
                    with self.subTest(score=score, normalize=normalize, bias=bias is not None):
                        gate = fixed_gate(score=score, top_k=3, normalize=normalize, select_bias=bias, scale=2.5)
                        routing = gate.route(gate.logits(torch.from_numpy(logits)))
                        for row in range(len(logits)):
                            experts, weights = reference_route(logits[row], score, 3, normalize, bias, 2.5)
                            self.assertEqual(routing.experts[row].tolist(), experts)
                            np.testing.assert_allclose(routing.weights[row].numpy(), weights, rtol=1e-9)

    def test_ties_go_to_the_lower_index(self):
        routing = fixed_gate(score="none", top_k=3).route(torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 1.0]]))
        self.assertEqual(routing.experts.tolist(), [[1, 3, 0]])

    def test_many_equal_scores_keep_their_order(self):
        routing = fixed_gate(top_k=64).route(torch.zeros(2, 256))
        self.assertEqual(routing.experts.tolist(), [list(range(64))] * 2)

    def test_select_bias_steers_the_choice_but_not_the_weight(self):
        logits = torch.tensor([[3.0, 2.0, 1.0]])
        routing = fixed_gate(score="none", top_k=1, select_bias=[0.0, 0.0, 9.0]).route(logits)
        self.assertEqual(routing.experts.tolist(), [[2]])
        self.assertEqual(routing.weights.tolist(), [[1.0]])

    def test_probabilities_cover_all_experts(self):
        logits = torch.tensor([[0.0, 1.0, -1.0]])
        for score in ("softmax", "none"):
            routing = fixed_gate(score=score, top_k=1).route(logits)
            torch.testing.assert_close(routing.probabilities, torch.softmax(logits, -1))
        routing = fixed_gate(score="sigmoid", top_k=1).route(logits)
        torch.testing.assert_close(routing.probabilities, torch.sigmoid(logits) / torch.sigmoid(logits).sum())

    def test_top_k_beyond_the_experts_is_refused(self):
        with self.assertRaisesRegex(ValueError, "top_k is 4, but the gate has 3 experts"):
            fixed_gate(top_k=4).route(torch.zeros(1, 3))
        for layers in (nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 3)))):
            self.assertEqual(Gate(layers, top_k=3).top_k, 3)
            with self.assertRaisesRegex(ValueError, "top_k is 4, but the gate has 3 experts"):
                Gate(layers, top_k=4)
            self.assertEqual(AttentiveGate(layers, 3, "0", top_k=4).top_k, 4)  # of experts, not of hidden numbers

    def test_unknown_settings_are_refused(self):
        with self.assertRaisesRegex(ValueError, "score is 'relu'"):
            fixed_gate(score="relu")
        with self.assertRaisesRegex(ValueError, "normalize is 'max'"):
            fixed_gate(normalize="max")


def linear_experts(count, inputs=4, outputs=3):
    return [nn.Linear(inputs, outputs) for _ in range(count)]


class BlocksTest(unittest.TestCase):
    def test_rms_norm(self):
        x = np.random.default_rng(2).normal(size=(4, 3, 5)).astype("float32")
        for shape, axes in ((5, -1), ((3, 5), (-2, -1))):
            norm = modules.RMSNorm(shape, eps=1e-3)
            norm.weight.data.uniform_()
            expected = x / np.sqrt((x ** 2).mean(axis=axes, keepdims=True) + 1e-3) * norm.weight.detach().numpy()
            np.testing.assert_allclose(norm(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5)

    def test_self_attention_is_pytorchs(self):
        x = torch.randn(3, 5, 8)
        for bias in (True, False):
            theirs = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True)
            torch.testing.assert_close(modules.SelfAttention.of(theirs)(x), theirs(x, x, x)[0])
        with self.assertRaisesRegex(ValueError, "add_bias_kv"):
            modules.SelfAttention.of(nn.MultiheadAttention(8, 2, add_bias_kv=True))
        with self.assertRaisesRegex(ValueError, "kdim"):
            modules.SelfAttention.of(nn.MultiheadAttention(8, 2, kdim=4))

    def test_gated_linear_units(self):
        x = torch.randn(3, 4)
        for activation, function in (("silu", nn.SiLU()), ("gelu", nn.GELU()), ("gelu_tanh", nn.GELU("tanh")),
                                     ("sigmoid", nn.Sigmoid()), ("relu", nn.ReLU())):
            glu = modules.GLU(4, 6, activation)
            torch.testing.assert_close(glu(x), function(glu.gate(x)) * glu.up(x))
        with self.assertRaisesRegex(ValueError, "activation is 'elu'"):
            modules.GLU(4, 6, "elu")

    def test_tokens_and_positions(self):
        x, token, positions = torch.randn(2, 3, 4), modules.ClassToken(4), modules.PositionEmbedding(4, 4)
        y = positions(token(x))
        torch.testing.assert_close(y[1, 0], token.weight + positions.weight[0])
        torch.testing.assert_close(y[1, 1:], x[1] + positions.weight[1:])
        torch.testing.assert_close(modules.Select(2)(y), y[:, 2])
        torch.testing.assert_close(modules.Select(1, axis=-1)(y), y[:, :, 1])
        torch.testing.assert_close(modules.Transpose()(y), y.permute(0, 2, 1))


class MoETest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_output_is_the_weighted_sum_of_the_selected_experts(self):
        moe = MoE(linear_experts(5), Gate(nn.Linear(4, 5), top_k=2, normalize="sum"))
        x = torch.randn(7, 4)
        y = moe(x)
        for row in range(7):
            chosen, weights = reference_route(moe.gate.layers(x)[row].detach().numpy(), "softmax", 2, "sum", None, 1)
            expected = sum(w * moe.experts[i](x[row]).detach().numpy() for i, w in zip(chosen, weights))
            np.testing.assert_allclose(y[row].detach().numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_unselected_experts_do_not_run(self):
        moe = MoE(linear_experts(3), fixed_gate(score="none", top_k=1))
        moe.experts[1] = nn.Linear(99, 99)  # would raise on rows of three numbers
        moe.experts[0], moe.experts[2] = nn.Linear(3, 2), nn.Linear(3, 2)
        moe(torch.tensor([[1.0, 0.0, 0.5], [0.0, -1.0, 0.5]]))
        self.assertEqual(moe.routing.experts.flatten().tolist(), [0, 2])

    def test_experts_may_return_any_shape(self):
        moe = MoE([nn.Conv2d(1, 2, 3) for _ in range(3)], Gate(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), top_k=2))
        self.assertEqual(moe(torch.randn(4, 1, 6, 6)).shape, (4, 2, 4, 4))

    def test_a_gate_for_another_number_of_experts_is_refused(self):
        with self.assertRaisesRegex(ValueError, "the gate gives 3 logits for 2 experts"):
            MoE(linear_experts(2), Gate(nn.Linear(4, 3)))(torch.randn(1, 4))

    def test_gradients_reach_gate_and_chosen_experts(self):
        moe = MoE(linear_experts(4), Gate(nn.Linear(4, 4), top_k=2))
        moe(torch.randn(3, 4)).square().sum().backward()
        self.assertGreater(moe.gate.layers.weight.grad.abs().sum(), 0)
        for index in moe.routing.experts.unique():
            self.assertGreater(moe.experts[index].weight.grad.abs().sum(), 0)

    def test_a_small_mixture_learns(self):
        x = torch.randn(200, 4)
        target = torch.where(x[:, :1] > 0, x @ torch.ones(4, 1), -x @ torch.ones(4, 1))
        moe = MoE(linear_experts(4, outputs=1), Gate(nn.Linear(4, 4)))
        optimizer = torch.optim.Adam(moe.parameters(), lr=0.05)
        losses = []
        for _ in range(300):
            loss = (moe(x) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.1 * losses[0])


class PositionsTest(unittest.TestCase):
    def test_every_position_is_routed_by_itself(self):
        torch.manual_seed(0)
        x = torch.randn(3, 2, 5, 4)
        moe = MoE(linear_experts(3), Gate(nn.Linear(4, 3), top_k=2), route="positions")
        y = moe(x)
        self.assertEqual(y.shape, (3, 2, 5, 3))
        self.assertEqual(moe.routing.experts.shape, (30, 2))
        alone = MoE(moe.experts, moe.gate)
        torch.testing.assert_close(y[1, 0, 4], alone(x[1, 0, 4:5])[0])

    def test_positions_have_no_entries(self):
        with self.assertRaisesRegex(ValueError, "with route positions an item is a vector"):
            MoE(linear_experts(2), Gate(nn.Linear(4, 2)), route="positions", expert_inputs=[0, 1])


class SharedExpertTest(unittest.TestCase):
    def test_it_is_added_unweighted_or_times_a_sigmoid(self):
        torch.manual_seed(0)
        x, shared, shared_gate = torch.randn(5, 4), nn.Linear(4, 3), nn.Linear(4, 1, bias=False)
        experts, gate = linear_experts(2), Gate(nn.Linear(4, 2), top_k=1)
        routed = MoE(experts, gate)(x)
        torch.testing.assert_close(MoE(experts, gate, shared=shared)(x), routed + shared(x))
        torch.testing.assert_close(MoE(experts, gate, shared=shared, shared_gate=shared_gate)(x),
                                   routed + torch.sigmoid(shared_gate(x)) * shared(x))
        with self.assertRaisesRegex(ValueError, "there is a shared_gate, but no shared expert"):
            MoE(experts, gate, shared_gate=shared_gate)


class MultiGateTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(6, 2, 4)
        gates = {"a": Gate(nn.Linear(4, 2), top_k=1), "b": Gate(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), top_k=2)}
        self.moe = MultiGateMoE(linear_experts(3), gates, gate_experts={"a": [0, 2]}, gate_inputs={"a": 1},
                                expert_inputs=[0, 1, 1])

    def test_every_gate_combines_what_it_chose(self):
        y = self.moe(self.x)
        self.assertEqual(y.shape, (6, 2, 3))
        outputs = torch.stack([self.moe.experts[i](self.x[:, (0, 1, 1)[i]]) for i in range(3)], dim=1)
        for gate, name, seen, members in ((0, "a", self.x[:, 1], [0, 2]), (1, "b", self.x, [0, 1, 2])):
            own = self.moe.gates[name]
            routing, recorded = own.route(own.logits(seen)), self.moe.routing[name]
            for row in range(6):
                chosen = [members[expert] for expert in routing.experts[row]]
                self.assertEqual(recorded.experts[row].tolist(), chosen)
                expected = sum(weight * outputs[row, expert] for weight, expert in zip(routing.weights[row], chosen))
                torch.testing.assert_close(y[row, gate], expected)

    def test_an_expert_runs_once_per_row(self):
        rows = []
        for expert in self.moe.experts:
            expert.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))
        self.moe(self.x)
        chosen = torch.cat([self.moe.routing["a"].experts, self.moe.routing["b"].experts], dim=1)
        self.assertEqual(rows, [int((chosen == index).any(dim=1).sum()) for index in range(3)])

    def test_gradients_reach_every_gate(self):
        self.moe(self.x).square().sum().backward()
        for gate in self.moe.gates.values():
            self.assertGreater(sum(weight.grad.abs().sum() for weight in gate.parameters()), 0)

    def test_a_capacity_of_one_gate(self):
        self.moe.gates["a"] = Gate(nn.Linear(4, 2), top_k=1, capacity={"factor": 0.4})  # one place each
        y, routing = self.moe(self.x), self.moe.routing["a"]
        dropped = routing.experts[:, 0] == -1
        self.assertTrue(dropped.any())
        self.assertTrue((y[:, 0][dropped] == 0).all())

    def test_settings_are_checked(self):
        def gate():
            return {"a": Gate(nn.Linear(4, 2))}
        for settings, message in (
                ({"gate_experts": {"a": [2, 0]}}, "is no ascending list"), ({"gate_experts": {"c": [0]}}, "'c'"),
                ({"gate_experts": {"a": [0, 3]}}, "not within 3"), ({"gate_inputs": {"c": 0}}, "gate_inputs are for"),
                ({"expert_inputs": [0]}, "1 expert_inputs for 3 experts")):
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                MultiGateMoE(linear_experts(3), gate(), **settings)
        with self.assertRaisesRegex(ValueError, "gate a is attentive"):
            MultiGateMoE(linear_experts(3), {"a": AttentiveGate(nn.Linear(4, 4), 4, "out")})


class AttentiveGateTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        experts = [nn.Sequential(OrderedDict(hidden=nn.Linear(4, 8), relu=nn.ReLU(), out=nn.Linear(8, 3)))
                   for _ in range(5)]
        self.moe = MoE(experts, AttentiveGate(nn.Linear(4, 8), 8, key_layer="hidden"))
        self.x = torch.randn(6, 4)

    def test_logits_are_scaled_products_of_query_and_keys(self):
        y = self.moe(self.x).detach().numpy()
        gate = self.moe.gate
        wq, wk = gate.query.weight.detach().numpy(), gate.key.weight.detach().numpy()
        for row in range(6):
            g = gate.layers(self.x[row]).detach().numpy()
            logits = np.array([(wq @ g) @ (wk @ expert.hidden(self.x[row]).detach().numpy()) / np.sqrt(8)
                               for expert in self.moe.experts])
            p = softmax(logits)
            np.testing.assert_allclose(self.moe.routing.probabilities[row].detach().numpy(), p, rtol=1e-5)
            expected = sum(p[i] * self.moe.experts[i](self.x[row]).detach().numpy() for i in range(5))
            np.testing.assert_allclose(y[row], expected, rtol=1e-5, atol=1e-6)

    def test_the_key_is_read_before_the_activation(self):
        expected = self.moe(self.x)
        for expert in self.moe.experts:
            expert.relu.inplace = True  # overwrites the hidden vector
        torch.testing.assert_close(self.moe(self.x), expected, rtol=0, atol=0)

    def test_top_k_may_follow(self):
        self.moe.gate.top_k = 1
        self.assertEqual(self.moe(self.x).shape, (6, 3))
        self.assertEqual(self.moe.routing.experts.shape, (6, 1))

    def test_a_missing_key_layer_is_named(self):
        self.moe.gate.key_layer = "fc9"
        with self.assertRaisesRegex(ValueError, "no layer named 'fc9'"):
            self.moe(self.x)


if __name__ == "__main__":
    unittest.main()
