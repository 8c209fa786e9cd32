"""Checkpoints: what is written, that it comes back, and what is refused."""

import json
import os
import unittest

import torch
from torch import nn

import moed
from moed import modules, safetensors
from moed.layers import AttentiveGate, Gate, MoE
from moed.loader import LoadError, load
from moed.ops import ExportError
from tests.export_case import ExportCase, expert, export, named, trained_like


class RoundTripTest(ExportCase):
    def test_image_layers(self):
        module = nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2, stride=1),
            nn.Conv2d(8, 4, (1, 3), bias=False), nn.SiLU(), nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Dropout(),
            nn.Linear(24, 5), nn.Softmax(dim=1))
        self.assert_returns(module, (4, 12, 12))

    def test_sequence_layers(self):
        self.assert_returns(nn.Sequential(
            nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6, affine=False), nn.Tanh(), modules.Cube(),
            nn.LayerNorm((6, 10)), modules.Scale(0.5), modules.RMSNorm((6, 10)), modules.Mean(-1), nn.Sigmoid(),
            nn.GELU(approximate="tanh"), modules.Reshape(2, 3), modules.Sum(0)), (3, 10))

    def test_the_mean_of_a_square(self):
        self.assert_returns(nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 6, 6))
        self.assertIn({"op": "avg_pool2d", "kernel": 4}, self.config()["layers"])

    def test_shapes_and_pools_that_are_more_general_than_their_op(self):
        """Written as others: such modules come back as what they are in a checkpoint."""
        for module, shape, ops in (
                (nn.Sequential(nn.Conv2d(2, 3, 3, padding="valid"), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(2)),
                 (2, 9, 8), ["conv2d", "adaptive_avg_pool2d", "reshape"]),
                (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 9, 8), ["adaptive_avg_pool2d", "flatten"]),
                (nn.Sequential(nn.AdaptiveAvgPool2d((None, 2)), nn.Unflatten(1, (2, 2))), (4, 3, 8),
                 ["adaptive_avg_pool2d", "reshape"])):
            x = torch.randn(4, *shape)
            export(module.eval(), self.path, shape)
            self.assertEqual([layer["op"] for layer in self.config()["layers"]], ops)
            torch.testing.assert_close(load(self.path)(x), module(x), rtol=1e-6, atol=1e-6)

    def test_residual_and_nested_sequentials(self):
        block = nn.Sequential(nn.LayerNorm(6), nn.Sequential(nn.Linear(6, 12), nn.ReLU()), nn.Linear(12, 6))
        self.assert_returns(nn.Sequential(modules.Residual(block), nn.Sequential(nn.Linear(6, 6))), (6,))
        names = [layer["name"] for layer in self.config()["layers"][0]["layers"] if "name" in layer]
        self.assertEqual(len(set(names)), 3)

    def test_plain_mixture(self):
        gate = Gate(named(flatten=nn.Flatten(), out=nn.Linear(12, 4)), score="sigmoid", top_k=2, normalize="sum",
                    select_bias=[0.1, 0.2, 0.3, 0.4], scale=1.5)
        experts = [named(flatten=nn.Flatten(), body=expert()) for _ in range(4)]
        self.assert_returns(named(stem=nn.Conv2d(1, 3, 1), moe=MoE(experts, gate)), (1, 2, 2))

    def test_attentive_mixture(self):
        experts = [named(fc1=nn.Linear(12, 8), relu=nn.ReLU(), out=nn.Linear(8, 3)) for _ in range(3)]
        self.assert_returns(named(moe=MoE(experts, AttentiveGate(nn.Linear(12, 8), 8, key_layer="fc1"))), (12,))

    def test_keys_may_be_read_after_an_activation(self):
        moe = MoE([expert() for _ in range(3)], AttentiveGate(nn.Linear(12, 8), 8, key_layer="relu"))
        self.assert_returns(named(moe=moe), (12,))
        self.assertIn({"op": "relu", "name": "relu"}, self.config()["layers"][0]["experts"]["layers"])

    def test_two_mixtures(self):
        def moe():
            return MoE([nn.Linear(6, 6) for _ in range(3)], Gate(nn.Linear(6, 3), score="none", normalize="softmax",
                                                                  top_k=2))
        self.assert_returns(named(first=moe(), second=modules.Residual(moe())), (6,))

    def test_weights_come_back_bit_for_bit(self):
        module = trained_like(named(fc=nn.Linear(7, 5)))
        export(module, self.path, (7,))
        loaded = load(self.path)
        self.assertTrue(torch.equal(loaded.layers.fc.weight, module.fc.weight))
        self.assertTrue(torch.equal(loaded.layers.fc.bias, module.fc.bias))

    def test_rounded_weights_are_what_load_returns(self):
        for dtype, rounded in (("f16", torch.float16), ("bf16", torch.bfloat16)):
            module = trained_like(named(fc=nn.Linear(7, 5)))
            export(module, self.path, (7,), dtype=dtype)
            self.assertTrue(torch.equal(load(self.path).layers.fc.weight, module.fc.weight.to(rounded).float()))

    def test_preprocessing_is_part_of_the_model(self):
        module = trained_like(named(conv=nn.Conv2d(2, 1, 1)))
        settings = {"scale": 0.1, "mean": [1.0, 2.0], "std": [0.5, 4.0]}
        export(module, self.path, (2, 2, 2), preprocess=settings)
        raw = torch.rand(3, 2, 2, 2) * 255
        x = (raw * 0.1 - torch.tensor([1.0, 2.0]).view(2, 1, 1)) / torch.tensor([0.5, 4.0]).view(2, 1, 1)
        with torch.no_grad():
            torch.testing.assert_close(load(self.path)(raw), module(x))


class ConfigTest(ExportCase):
    def test_a_mixture_is_described_as_the_format_says(self):
        gate = Gate(named(out=nn.Linear(12, 4)), top_k=2, normalize="sum", select_bias=[0.0] * 4)
        model = named(stem=nn.Linear(5, 12), act=nn.ReLU(), moe=MoE([expert() for _ in range(4)], gate))
        export(model, self.path, (5,), input_name="x", output_name="p", labels=["a", "b", "c"], description="test",
               routing_reference={"moe": {"share": [0.25] * 4, "rows": 8}})
        self.assertEqual(self.config(), {
            "model_type": "moed", "format_version": 1, "description": "test", "input": {"name": "x", "shape": [5]},
            "layers": [
                {"op": "linear", "name": "stem"}, {"op": "relu"},
                {"op": "moe", "name": "moe",
                 "gate": {"layers": [{"op": "linear", "name": "out"}], "score": "softmax", "top_k": 2,
                          "normalize": "sum"},
                 "experts": {"count": 4, "layers": [{"op": "linear", "name": "fc1"}, {"op": "relu"},
                                                    {"op": "linear", "name": "out"}, {"op": "softmax"}]}}],
            "output": {"name": "p", "labels": ["a", "b", "c"]},
            "routing_reference": {"moe": {"share": [0.25] * 4, "rows": 8}}})
        expected = {"stem.weight", "stem.bias", "moe.gate.out.weight", "moe.gate.out.bias", "moe.gate.select_bias"}
        for index in range(4):
            expected |= {f"moe.experts.{index}.{name}" for name in ("fc1.weight", "fc1.bias", "out.weight", "out.bias")}
        self.assertEqual(set(self.tensors()), expected)

    def test_mixtures_in_residuals_have_a_reference_too(self):
        moe = MoE([nn.Linear(4, 4), nn.Linear(4, 4)], Gate(nn.Linear(4, 2)))
        reference = {"block_moe": {"share": [0.5, 0.5], "rows": 3}}
        export(named(block=modules.Residual(named(moe=moe))), self.path, (4,), routing_reference=reference)
        self.assertEqual(self.config()["routing_reference"], reference)

    def test_an_attentive_gate_is_described_as_the_format_says(self):
        gate = AttentiveGate(named(fc=nn.Linear(12, 8)), 8, key_layer="fc1")
        export(named(moe=MoE([expert(), expert()], gate)), self.path, (12,))
        self.assertEqual(self.config()["layers"][0]["gate"],
                         {"kind": "attentive", "key_layer": "fc1", "layers": [{"op": "linear", "name": "fc"}],
                          "score": "softmax", "normalize": "none"})
        self.assertEqual(self.tensors()["moe.gate.query.weight"].shape, (8, 8))
        self.assertEqual(self.tensors()["moe.gate.key.weight"].shape, (8, 8))

    def test_defaults_are_left_out_and_settings_written(self):
        export(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), nn.MaxPool2d(2),
                             nn.AvgPool2d(2, stride=1)), self.path, (2, 12, 12))
        self.assertEqual(self.config()["layers"], [
            {"op": "conv2d", "name": "0"}, {"op": "conv2d", "name": "1", "stride": 2, "padding": 1, "groups": 2},
            {"op": "max_pool2d", "kernel": 2}, {"op": "avg_pool2d", "kernel": 2, "stride": 1}])

    def test_the_callers_module_is_left_as_it_was(self):
        module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double().train()
        export(module, self.path, (3,))
        self.assertTrue(module.training)
        self.assertEqual(module[1].weight.dtype, torch.float64)
        self.assertEqual(module[0].num_batches_tracked, 0)

    def test_a_model_in_the_middle_of_training_can_be_exported(self):
        module = named(moe=MoE([nn.Linear(4, 4)], Gate(nn.Linear(4, 1))))
        module(torch.randn(2, 4)).sum().backward()
        export(module, self.path, (4,))


class OneNumberTest(ExportCase):
    def test_norms_of_one_number(self):
        """Which PyTorch refuses of one row, and takes of two."""
        moed.export(nn.Sequential(nn.GroupNorm(3, 3)).eval(), torch.zeros(1, 3, 1), self.path)


class RefusalTest(ExportCase):
    def test_layers_the_format_cannot_express(self):
        image = (2, 8, 8)
        for layer, shape, message in (
                (nn.Conv2d(2, 2, 3, padding_mode="reflect", padding=1), image, "model.0: padding_mode 'reflect'"),
                (nn.Conv2d(2, 2, 3, dilation=2), image, r"model.0: dilation \(2, 2\) is not 1"),
                (nn.Conv2d(2, 2, 3, stride=(1, 2)), image, r"model.0: stride \(1, 2\) differs between axes"),
                (nn.MaxPool2d(2, ceil_mode=True), image, "model.0: ceil_mode is on"),
                (nn.MaxPool2d(2, dilation=2), image, "model.0: dilation 2"),
                (nn.MaxPool2d((1, 2)), image, r"model.0: kernel_size \(1, 2\)"),
                (nn.AvgPool2d(2, padding=1, count_include_pad=False), image, "model.0: count_include_pad"),
                (nn.AvgPool2d(2, divisor_override=3), image, "model.0: divisor_override"),
                (nn.BatchNorm2d(2, track_running_stats=False), image, "model.0: track_running_stats"),
                (nn.Flatten(0), image, "model.0: start_dim 0"),
                (nn.Softmax(), (4,), "model.0: softmax.*softmax needs its dim"),
                (nn.RReLU(), (4,), "model.0: RReLU has no op"),
                (nn.Linear(5, 2), (4,), r"model.0: does not accept rows of shape \[4\]")):
            with self.subTest(str(layer)):
                self.assert_refused(nn.Sequential(layer), shape, message)

    def test_the_path_leads_into_mixtures(self):
        bad = named(fc1=nn.Linear(12, 8), act=nn.RReLU())
        self.assert_refused(named(moe=MoE([bad], Gate(nn.Linear(12, 1)))), (12,), "model.moe.experts.0.act: RReLU")
        self.assert_refused(named(moe=MoE([expert()], Gate(named(a=nn.Hardshrink())))), (12,),
                            "model.moe.gate.layers.a: Hardshrink")

    def test_experts_must_be_alike(self):
        moe = MoE([expert(), named(fc1=nn.Linear(12, 9), relu=nn.ReLU(), out=nn.Linear(9, 3), s=nn.Softmax(-1))],
                  Gate(nn.Linear(12, 2)))
        self.assert_refused(named(moe=moe), (12,), "model.moe.experts.1: differs from expert 0")

    def test_a_layer_that_stands_there_twice(self):
        relu, fc = nn.ReLU(), nn.Linear(4, 4)
        self.assert_returns(nn.Sequential(fc, relu, nn.Linear(4, 4), relu, fc), (4,))

    def test_a_gate_gives_one_axis(self):
        self.assert_refused(named(moe=MoE([nn.Linear(4, 4)], Gate(nn.Linear(4, 1)))), (3, 4),
                            r"model.moe.gate: the layers give \[3, 1\] for a row")

    def test_a_gate_gives_one_logit_per_expert(self):
        for count in (1, 3):
            self.assert_refused(named(moe=MoE([nn.Linear(4, 4), nn.Linear(4, 4)], Gate(nn.Linear(4, count)))), (4,),
                                f"model.moe.gate: {count} logits for 2 experts")

    def test_names_are_metric_labels(self):
        self.assert_refused(named(**{"fc 1": nn.Linear(4, 4)}), (4,), "model.fc 1: 'fc 1' is no name")

    def test_mixtures_do_not_nest(self):
        inner = MoE([nn.Linear(4, 4)], Gate(nn.Linear(4, 1)))
        self.assert_refused(named(moe=MoE([named(inner=inner)], Gate(nn.Linear(4, 1)))), (4,),
                            "model.moe.experts.0.inner: a MoE layer inside")

    def test_key_layer_is_one_layer(self):
        experts = [named(body=named(fc=nn.Linear(12, 8), relu=nn.ReLU()), out=nn.Linear(8, 3))]
        moe = MoE(experts, AttentiveGate(nn.Linear(12, 8), 8, key_layer="body"))
        self.assert_refused(named(moe=moe), (12,), "model.moe.gate: key_layer 'body' is not one layer of the experts")

    def test_in_place_layers_in_branches(self):
        branch = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
        self.assert_refused(nn.Sequential(modules.Residual(branch)), (4,), "model.0: a layer inside changes the shared")
        gate = Gate(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)))
        self.assert_refused(named(moe=MoE([nn.Linear(4, 4), nn.Linear(4, 4)], gate)), (4,), "model.moe: a layer inside")

    def test_in_place_layers_that_the_example_does_not_show(self):
        positive = nn.Linear(4, 4)
        nn.init.constant_(positive.bias, 9.0)
        branch = modules.Residual(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)))
        self.assert_refused(nn.Sequential(positive, branch), (4,), "model.1: a layer inside changes the shared")

    def test_a_residual_must_keep_the_shape(self):
        self.assert_refused(nn.Sequential(modules.Residual(nn.Linear(4, 1))), (4,),
                            r"model.0: the branch turns \[4\] into \[1\]")

    def test_subclasses_of_moeds_layers(self):
        class Mine(MoE):
            pass
        mine = Mine([nn.Linear(4, 4)], Gate(nn.Linear(4, 1)))
        self.assert_refused(nn.Sequential(mine), (4,), "model.0: Mine has no op")

    def test_weights_must_be_finite_and_fit(self):
        module = named(fc=nn.Linear(2, 2))
        module.fc.weight.data[0, 0] = float("nan")
        self.assert_refused(module, (2,), "model.fc: weight holds values that are not finite")
        module.fc.weight.data[0, 0] = 1e6
        with self.assertRaisesRegex(ExportError, "fc.weight: a value of magnitude 1e\\+06 does not fit into F16"):
            export(module, self.path, (2,), dtype="f16")
        self.assertEqual(os.listdir(self.folder), [])

    def test_settings(self):
        module = named(fc=nn.Linear(2, 3))
        for settings, message in (
                ({"labels": ["a"]}, "labels: 1 labels for an output of 3"),
                ({"preprocess": {"mean": [1.0] * 3}}, "preprocess: mean has 3 values, but the input has 2 channels"),
                ({"preprocess": {"std": [1.0, 0.0]}}, "preprocess: std has a zero"),
                ({"preprocess": {"gain": 2}}, r"preprocess: unknown keys \['gain'\]"),
                ({"dtype": "int8"}, "dtype: 'int8' is not one of f32, f16, bf16"),
                ({"routing_reference": {"moe": {"share": [1], "rows": 1}}}, "routing_reference: 'moe' is not a MoE")):
            with self.subTest(message), self.assertRaisesRegex(ExportError, message):
                export(module, self.path, (2,), **settings)


class DirectoryTest(ExportCase):
    def test_a_checkpoint_is_replaced_whole(self):
        export(named(old=nn.Linear(2, 2)), self.path, (2,))
        export(named(new=nn.Linear(3, 3)), self.path, (3,))
        self.assertEqual(set(self.tensors()), {"new.weight", "new.bias"})
        self.assertEqual(os.listdir(self.folder), ["model"])

    def test_anything_else_is_left_alone(self):
        os.mkdir(self.path)
        with open(os.path.join(self.path, "thesis.txt"), "w") as file:
            file.write("years of work")
        with self.assertRaisesRegex(ExportError, "exists and is not a moed checkpoint"):
            export(named(fc=nn.Linear(2, 2)), self.path, (2,))
        self.assertEqual(os.listdir(self.path), ["thesis.txt"])

    def test_a_failure_keeps_the_old_checkpoint(self):
        export(named(fc=nn.Linear(2, 2)), self.path, (2,))
        before = self.files()
        broken = named(fc=nn.Linear(2, 2))
        broken.fc.weight.data.fill_(1e30)
        with self.assertRaises(ExportError):
            export(broken, self.path, (2,), dtype="f16")
        self.assertEqual(self.files(), before)
        self.assertEqual(os.listdir(self.folder), ["model"])


class ShardTest(ExportCase):
    def test_weights_in_several_files(self):
        module = trained_like(named(a=nn.Linear(8, 8), b=nn.Linear(8, 8), d=nn.Linear(8, 8), c=nn.Linear(8, 50)))
        export(module, self.path, (8,), max_shard_bytes=600)
        names = sorted(name for name in os.listdir(self.path) if name.endswith(".safetensors"))
        self.assertEqual(names, [f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5)])
        with open(os.path.join(self.path, "model.safetensors.index.json"), encoding="utf-8") as file:
            weight_map = json.load(file)["weight_map"]
        self.assertEqual([weight_map[name] for name in ("a.bias", "b.bias", "d.weight", "d.bias")],
                         [names[0], names[0], names[1], names[1]])
        self.assertEqual(weight_map["c.weight"], names[2])  # too large for any, so alone
        for name in names:
            self.assertEqual({tensor for tensor, file in weight_map.items() if file == name},
                             set(safetensors.read(os.path.join(self.path, name))))
        x = torch.randn(3, 8)
        with torch.no_grad():
            self.assertTrue(torch.equal(load(self.path)(x), module(x)))

    def test_one_file_is_enough_for_little(self):
        export(named(fc=nn.Linear(2, 2)), self.path, (2,), max_shard_bytes=1000)
        self.assertEqual(sorted(os.listdir(self.path)), ["config.json", "model.safetensors"])


class LoadTest(ExportCase):
    def write_config(self, config):
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)

    def damaged(self, change):
        export(named(fc=nn.Linear(2, 2), act=nn.ReLU()), self.path, (2,))
        config = self.config()
        change(config)
        self.write_config(config)

    def test_norms_may_do_without_weight_and_bias(self):
        module = trained_like(named(norm=nn.BatchNorm1d(3, affine=False)))
        export(module, self.path, (3,))
        tensors = self.tensors()
        del tensors["norm.weight"], tensors["norm.bias"]
        safetensors.write(os.path.join(self.path, "model.safetensors"), tensors)
        x = torch.randn(4, 3)
        torch.testing.assert_close(load(self.path)(x), module(x))
        del tensors["norm.running_var"]
        safetensors.write(os.path.join(self.path, "model.safetensors"), tensors)
        with self.assertRaisesRegex(LoadError, "tensor 'norm.running_var' is missing"):
            load(self.path)

    def test_what_the_format_does_not_define_is_refused(self):
        for message, change in (
                ("format_version: expected an integer from 1 to 3", lambda config: config.update(format_version=4)),
                (r"layers\[1\].op: 'elu' needs \"format_version\": 3",
                 lambda config: config["layers"][1].update(op="elu")),
                (r"layers\[1\]: unknown key 'alpha'", lambda config: config["layers"][1].update(alpha=1)),
                (r"layers\[1\].op: unknown op 'gru'", lambda config: config["layers"][1].update(op="gru")),
                ("input: unknown key 'categories'", lambda config: config["input"].update(categories=3)),
                ("output: unknown key 'layers'", lambda config: config["output"].update(layers=[])),
                ("a model of sequences", lambda config: config.update(context=8, format_version=3)),
                ("inputs: needs \"format_version\": 2", lambda config: config.update(inputs=[config.pop("input")])),
                ("input: expected an object", lambda config: config.pop("input")),
                (r"no layer uses the tensors \['fc.bias', 'fc.weight'\]", lambda config: config["layers"].pop(0)),
                ("tensor 'fc2.weight' is missing", lambda config: config["layers"][0].update(name="fc2"))):
            self.damaged(change)
            with self.subTest(message), self.assertRaisesRegex(LoadError, message):
                load(self.path)

    def test_format_1_has_none_of_format_2s_mixtures(self):
        for message, change in (
                (r"layers\[0\].gate.groups: needs \"format_version\": 2",
                 lambda moe: moe["gate"].update(groups={"count": 1, "keep": 1})),
                (r"layers\[0\].route: needs \"format_version\": 2", lambda moe: moe.update(route="rows")),
                (r"layers\[0\].experts.inputs: needs", lambda moe: moe["experts"].update(inputs=[0]))):
            export(named(moe=MoE([nn.Linear(2, 2)], Gate(nn.Linear(2, 1)))), self.path, (2,))
            config = self.config()
            change(config["layers"][0])
            self.write_config(config)
            with self.subTest(message), self.assertRaisesRegex(LoadError, message):
                load(self.path)


if __name__ == "__main__":
    unittest.main()
