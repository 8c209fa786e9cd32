"""MoE blocks of other packages: those of the same shape in foreign.py, and the packages' own where they are there."""

import importlib
import unittest

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import adapters, recommenders
from tests import field_recommenders, foreign
from tests.export_case import ExportCase, routings
from tests.test_fx_trace import calling

SIZE, INNER, COUNT = 8, 6, 8


def randomised(module):
    """Trained as far as a test needs it: no weight is zero, no two logits are equal."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator)
            reach = (3 / tensor[0].numel()) ** 0.5 if tensor.dim() == 4 else 1  # deep networks do not overflow
            tensor.copy_(values + 0.5 if name.endswith("running_var") else reach * (values * 2 - 1))
    for part in module.modules():
        part.training = False
    return module


class Exploding(nn.Module):
    def forward(self, x):
        return (1e4 * x).exp()


class AdapterCase(ExportCase):
    def assert_taken(self, module, shape, gate, **settings):
        """Exports the module, which compares it with the checkpoint, and returns the MoE layer of config.json."""
        randomised(module)
        moed.export(module, torch.zeros(1, *shape), self.path, **settings)
        layers = [inner for layer in self.config()["layers"] for inner in (layer, *layer.get("layers", []))]
        layer = next(layer for layer in layers if layer["op"] == "moe")
        described = {key: value for key, value in layer["gate"].items() if key != "layers"}
        self.assertEqual(described, gate)
        return layer


def router(policy, top_k=2, **settings):
    return foreign.TopKRouter(policy, COUNT, SIZE, top_k, **settings)


class BlocksTest(AdapterCase):
    SUM = {"score": "softmax", "top_k": 2, "normalize": "sum"}
    SHAPE = (5, SIZE)

    def test_language_models(self):
        packed = foreign.PackedExperts(COUNT, SIZE, INNER)
        layer = self.assert_taken(foreign.Block(router("mixtral"), packed), self.SHAPE, self.SUM)
        self.assertEqual([part["op"] for part in layer["experts"]["layers"]], ["glu", "linear"])
        self.assert_taken(foreign.Block(router("olmoe", 3), packed), self.SHAPE,
                          {"score": "softmax", "top_k": 3, "normalize": "none"})
        deepseek = router("deepseek-v3", 3, n_group=4, topk_group=2, routed_scaling_factor=2.5)
        self.assert_taken(foreign.Block(deepseek, packed), self.SHAPE,
                          {"score": "sigmoid", "top_k": 3, "normalize": "sum", "scale": 2.5,
                           "groups": {"count": 4, "keep": 2, "by": "top2"}})
        self.assertIn("moe.gate.select_bias", self.tensors())

    def test_shared_experts(self):
        for gate in (None, nn.Linear(SIZE, 1, bias=False)):
            block = foreign.Block(router("olmoe"), foreign.PackedExperts(COUNT, SIZE, INNER, functional.gelu),
                                  foreign.MLP(SIZE, 5), gate)
            layer = self.assert_taken(block, self.SHAPE, {"score": "softmax", "top_k": 2, "normalize": "none"})
            self.assertEqual(layer["shared"].get("gate"), None if gate is None else "sigmoid")

    def test_shared_experts_in_a_list(self):
        for count in (1, 2):
            layer = self.assert_taken(foreign.WithoutLoss(COUNT, SIZE, INNER, count), self.SHAPE,
                                      {"score": "sigmoid", "top_k": 2, "normalize": "sum"})
            self.assertEqual(len([name for name in self.tensors() if ".shared." in name]), 3 * count)
            self.assertIn("shared", layer)

    def test_layers_beside_a_mixture(self):
        """Recorded where that is possible, with its routing; else the refusal says what is in the way."""
        moed.export(foreign.WithHead(SIZE).eval(), torch.zeros(1, SIZE, 7), self.path)
        self.assertIn("moe", [layer["op"] for layer in self.config()["layers"]])

        class Chosen(foreign.WithHead):
            def forward(self, x):
                weights = torch.softmax(self.gate(x.mean(2)), 1)
                best = torch.stack([self.experts[int(index)](row) for index, row in zip(weights.argmax(1), x)])
                return self.head(best.mean(-1)).sin()
        with self.assertRaisesRegex(moed.ExportError, r"Chosen has experts and a router.*\(head beside them: give"):
            moed.export(Chosen(SIZE).eval(), torch.zeros(1, SIZE, 7), self.path)

    def test_clamped_experts(self):
        block = foreign.Block(router("gpt-oss"), foreign.ClampedExperts(COUNT, SIZE, INNER))
        layer = self.assert_taken(block, self.SHAPE, self.SUM)
        self.assertEqual(layer["experts"]["layers"][0],
                         {"op": "glu", "name": "glu", "limit": 1.0, "alpha": 1.702, "shift": 1.0})

    def test_a_module_per_expert(self):
        self.assert_taken(foreign.LinearGateBlock(COUNT, SIZE, INNER), self.SHAPE, self.SUM,
                          output_name=["output", None])
        self.assert_taken(foreign.EinsumMoE(COUNT, SIZE, INNER), self.SHAPE, self.SUM)
        for k, gate in ((2, self.SUM), (COUNT, {"score": "softmax", "normalize": "sum"})):
            self.assert_taken(foreign.NoisyTopK(COUNT, SIZE, 3, k), (SIZE,), gate)

    def test_weights_on_the_input_and_capacity(self):
        experts = foreign.PackedExperts(COUNT, SIZE, INNER)
        layer = self.assert_taken(foreign.InputScaled(router("mixtral", 1), experts), self.SHAPE,
                                  {"score": "sigmoid", "top_k": 1, "normalize": "none"})
        self.assertEqual(layer["weigh"], "inputs")
        self.assert_taken(foreign.Dropping(4, SIZE, INNER, 2), (7, SIZE),
                          {"score": "softmax", "top_k": 2, "normalize": "none", "capacity": {"places": 2, "rows": 1}})

    def test_experts_of_other_kinds(self):
        layer = self.assert_taken(foreign.Block(router("deepseek-v4"), foreign.LimitedExperts(COUNT, SIZE, INNER)),
                                  self.SHAPE, {"score": "sqrt_softplus", "top_k": 2, "normalize": "sum"})
        self.assertEqual(layer["experts"]["layers"][0], {"op": "glu", "name": "glu", "limit": 0.5})
        layer = self.assert_taken(foreign.Block(router("mixtral"), foreign.ZeroExperts(COUNT, 3, SIZE, INNER)),
                                  self.SHAPE, self.SUM)
        self.assertEqual((layer["experts"]["count"], layer["experts"]["identity"]), (COUNT, 3))
        layer = self.assert_taken(foreign.Block(router("mixtral"), foreign.UngatedExperts(COUNT, SIZE, INNER)),
                                  self.SHAPE, self.SUM)
        self.assertEqual([part["op"] for part in layer["experts"]["layers"]], ["linear", "relu2", "linear"])

    def test_what_random_weights_make_infinite(self):
        block = foreign.NoisyTopK(8, SIZE, 3, 2)
        for part in block.experts:
            part[1] = Exploding()
        self.assert_refused(nn.Sequential(block), (SIZE,), "model.0: NoisyTopK gives numbers that are not finite")

    def test_packed_in_a_way_that_we_do_not_know(self):
        experts = foreign.PackedExperts(COUNT, SIZE, INNER)
        experts.down_proj = nn.Parameter(torch.randn(COUNT + 1, SIZE, INNER))
        self.assert_refused(nn.Sequential(foreign.Block(router("mixtral"), experts)), self.SHAPE,
                            "model.0: the experts of Block are packed in a way that we do not know")

    def test_positions_left_in_one_axis(self):
        class Decoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.mlp = foreign.Flattening(router("mixtral", 1), foreign.PackedExperts(COUNT, SIZE, INNER))

            def forward(self, x):
                hidden, _ = self.mlp(x)
                return (x + hidden.view(x.shape)).mean(1)
        self.assert_taken(Decoder(), self.SHAPE, {"score": "sigmoid", "top_k": 1, "normalize": "none"})

    def test_the_papers_own_classes(self):
        layer = self.assert_taken(foreign.Expectation(4, 12, 3), (12,), {"score": "softmax", "normalize": "sum"})
        self.assertEqual([part["op"] for part in layer["gate"]["layers"]][-1], "scale")  # no softmax before the gate's
        self.assert_taken(foreign.Selected(4, 12, 3, 2), (12,), self.SUM)
        layer = self.assert_taken(foreign.RoutedImages(4), (3, 8, 8),
                                  {"score": "softmax", "top_k": 1, "normalize": "none"},
                                  output_name=["probabilities", None, None, None])
        self.assertIn("add", [part["op"] for part in layer["experts"]["layers"]])
        self.assertEqual(self.config()["layers"][-1], {"op": "softmax"})

    def test_within_a_model(self):
        class Decoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.head = nn.LayerNorm(SIZE), nn.Linear(SIZE, 2)
                self.mlp = foreign.Block(router("mixtral"), foreign.PackedExperts(COUNT, SIZE, INNER), pair=True)

            def forward(self, x):
                hidden, _ = self.mlp(self.norm(x))
                return self.head((x + hidden).mean(1))
        model = randomised(Decoder())
        x = torch.randn(3, 5, SIZE)
        _, logits = model.mlp(model.norm(x))
        moed.export(model, x, self.path)
        loaded = moed.load(self.path)
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-5)
        (routing,) = routings(loaded)
        self.assertTrue(torch.equal(routing.experts, logits.topk(2)[1]))

    def test_what_no_policy_explains(self):
        block = randomised(foreign.Squared(router("mixtral"), foreign.PackedExperts(COUNT, SIZE, INNER)))
        self.assert_refused(nn.Sequential(block), self.SHAPE, "model.0: Squared has experts and a router, but")


class PooledTest(ExportCase):
    """Sequence features of recommenders: a category that stands for padding does not count, wherever it is."""

    def test_pools(self):
        table = nn.Embedding(6, 3)
        ids = torch.tensor([[1, 2, 5, 3], [4, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 2]])
        mask = (ids != 0).unsqueeze(-1).float()
        embedded = table(ids)
        expected = {"sum": (embedded * mask).sum(1), "mean": (embedded * mask).sum(1) / (mask.sum(1) + 1e-8),
                    "max": (embedded - (1 - mask) * 1e9).amax(1)}
        for pool, values in expected.items():
            with self.subTest(pool):
                layers = recommenders.pooled("history", table, pool, 0)
                torch.testing.assert_close(layers(ids), values, rtol=1e-5, atol=1e-6)
                model = moed.nn.MultiTask({"history": moed.nn.Input((4,), 6, layers=layers), "x": moed.nn.Input((2,))},
                                          nn.Linear(5, 2), {"y": moed.nn.Output()})
                moed.export(model.eval(), None, self.path)


class RegistryTest(AdapterCase):
    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.pick, self.workers = nn.Linear(4, 3), nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            least = self.pick(x.abs()).argmin(-1)  # which nobody would try
            return torch.stack([self.workers[index](row) for index, row in zip(least.tolist(), x)])

    @staticmethod
    def gate_of(module):
        """The gate that it is."""
        return calling(lambda self, x: -self.pick(x.abs()), pick=module.pick)

    def setUp(self):
        super().setUp()
        self.addCleanup(adapters._adapters.update, dict(adapters._adapters))
        self.addCleanup(adapters._adapters.clear)

    def test_three_lines(self):
        model = nn.Sequential(nn.Linear(6, 4), self.Theirs())
        self.assert_refused(model, (6,), "model.1: Theirs.forward cannot be followed: .*moed.register_adapter")

        @moed.register_adapter(self.Theirs)
        def adapt(module):
            return moed.nn.MoE(module.workers, moed.nn.Gate(self.gate_of(module), top_k=1, normalize="sum"))
        self.assert_taken(model, (6,), {"score": "softmax", "top_k": 1, "normalize": "sum"})

    def test_by_name_and_with_an_example(self):
        @moed.register_adapter(f"{__name__}.RegistryTest.Theirs")
        def adapt(module, row):
            self.assertEqual(row.shape, (1, 4))
            gate = moed.nn.Gate(self.gate_of(module), top_k=1, normalize="sum")
            return nn.Sequential(moed.nn.MoE(module.workers, gate))
        self.assert_taken(self.Theirs(), (4,), {"score": "softmax", "top_k": 1, "normalize": "sum"})

    def test_a_train_of_its_own(self):
        """Of the class that has the adapter."""
        class Trains(self.Theirs):
            def train(self, loader, epochs):
                raise AssertionError("export does not train")

        @moed.register_adapter(Trains)
        def adapt(module):
            return moed.nn.MoE(module.workers, moed.nn.Gate(self.gate_of(module), top_k=1, normalize="sum"))
        self.assert_taken(Trains(), (4,), {"score": "softmax", "top_k": 1, "normalize": "sum"})

    def test_an_adapter_that_is_wrong(self):
        moed.register_adapter(self.Theirs)(
            lambda module: moed.nn.MoE(module.workers, moed.nn.Gate(self.gate_of(module), top_k=2, normalize="sum")))
        self.assert_refused(randomised(self.Theirs()), (4,), "model: the checkpoint computes something else than")

    def test_what_is_no_class(self):
        with self.assertRaisesRegex(TypeError, "takes classes or their names"):
            moed.register_adapter(lambda module: module)


# ---- the packages themselves, where they are installed ----

def of_transformers(family, config, block, *arguments, **settings):
    models = importlib.import_module(f"transformers.models.{family}")
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    common = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 2, "vocab_size": 32}
    config = getattr(models, config)(**{**common, **settings})
    config._experts_implementation = "eager"
    return getattr(modeling, block)(config, *arguments)


MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
TRANSFORMERS = (
    ("mixtral", "MixtralConfig", "MixtralSparseMoeBlock", LOCAL), ("olmoe", "OlmoeConfig", "OlmoeSparseMoeBlock", MOE),
    ("qwen2_moe", "Qwen2MoeConfig", "Qwen2MoeSparseMoeBlock", {**MOE, "shared_expert_intermediate_size": 20}),
    ("qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock", MOE),
    ("deepseek_v2", "DeepseekV2Config", "DeepseekV2Moe", {
        **MOE, "n_routed_experts": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
        "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5}),
    ("deepseek_v3", "DeepseekV3Config", "DeepseekV3MoE", {
        **MOE, "n_routed_experts": 8, "n_shared_experts": 2, "n_group": 4, "topk_group": 2}),
    ("granitemoe", "GraniteMoeConfig", "GraniteMoeMoE", LOCAL),
    ("phimoe", "PhimoeConfig", "PhimoeSparseMoeBlock", LOCAL),
    ("gpt_oss", "GptOssConfig", "GptOssMLP", LOCAL),
    ("switch_transformers", "SwitchTransformersConfig", "SwitchTransformersSparseMLP", {
        "num_experts": 4, "expert_capacity": 3, "d_model": 16, "d_ff": 24}),
    ("dbrx", "DbrxConfig", "DbrxFFN", {"d_model": 16, "ffn_config": {
        "ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 16}}),
    ("glm4_moe", "Glm4MoeConfig", "Glm4MoeMoE", {**MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}),
    ("minimax", "MiniMaxConfig", "MiniMaxSparseMoeBlock", LOCAL),
    ("minimax_m2", "MiniMaxM2Config", "MiniMaxM2SparseMoeBlock", LOCAL),
    ("ernie4_5_moe", "Ernie4_5_MoeConfig", "Ernie4_5_MoeSparseMoeBlock", {
        "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 12}),
    ("lfm2_moe", "Lfm2MoeConfig", "Lfm2MoeSparseMoeBlock", MOE),
    ("hunyuan_v1_moe", "HunYuanMoEV1Config", "HunYuanMoEV1Moe", {"num_experts": 4, "moe_topk": 2}),
    ("flex_olmo", "FlexOlmoConfig", "FlexOlmoSparseMoeBlock", MOE),
    ("llama4", "Llama4TextConfig", "Llama4TextMoe", {"num_local_experts": 4, "num_experts_per_tok": 1}),
    ("longcat_flash", "LongcatFlashConfig", "LongcatFlashMoE", {
        "n_routed_experts": 4, "zero_expert_num": 2, "expert_ffn_hidden_size": 12, "num_experts_per_tok": 2}),
    ("nemotron_h", "NemotronHConfig", "NemotronHMoE", {
        **MOE, "n_routed_experts": 4, "moe_shared_expert_intermediate_size": 20, "n_group": 1, "topk_group": 1}),
    ("deepseek_v4", "DeepseekV4Config", "DeepseekV4SparseMoeBlock", {
        **LOCAL, "n_routed_experts": 4, "moe_intermediate_size": 12, "mlp_layer_types": ["moe"]}, (0,)))


class PackagesTest(ExportCase):
    def try_block(self, module, shape=(5, 16)):
        module = randomised(module)
        result = module(torch.zeros(2, *shape))
        names = ["output", *[None] * (len(result) - 1)] if isinstance(result, tuple) else "output"
        moed.export(module, torch.zeros(1, *shape), self.path, output_name=names)
        self.assertIn("moe", [layer["op"] for layer in self.config()["layers"]])

    def package(self, name):
        try:
            return importlib.import_module(name)
        except ImportError:
            self.skipTest(f"{name} is not installed")

    def test_transformers(self):
        self.package("transformers")
        for family, config, block, settings, *arguments in TRANSFORMERS:
            with self.subTest(family):
                try:
                    module = of_transformers(family, config, block, *sum(arguments, ()), **settings)
                except (ImportError, AttributeError) as missing:
                    self.skipTest(f"{family}: {missing}")
                # Llama 4's block gives the tokens of all rows side by side: there a token is a row.
                self.try_block(module, (16,) if family == "llama4" else (5, 16))

    def test_lucidrains(self):
        package = self.package("mixture_of_experts")
        for factor in (8.0, 1.0):
            self.try_block(package.MoE(8, num_experts=4, hidden_dim=16, second_policy_eval="all",
                                       capacity_factor_eval=factor), (30, 8))
        with self.assertRaisesRegex(moed.ExportError, "two answers|no routing policy"):
            self.try_block(package.MoE(8, num_experts=4, hidden_dim=16), (6, 8))

    def test_st_moe(self):
        package = self.package("st_moe_pytorch")
        for top_n in (2, 3):
            self.try_block(package.MoE(dim=8, num_experts=4, gating_top_n=top_n, threshold_eval=0.0,
                                       capacity_factor_eval=8.0), (6, 8))

    def test_deepctr(self):
        self.package("deepctr_torch")
        from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
        from deepctr_torch.models.multitask.mmoe import MMOE
        from deepctr_torch.models.multitask.ple import PLE
        columns = [SparseFeat("a", 5, embedding_dim=4), DenseFeat("d", 1), SparseFeat("b", 7, embedding_dim=4),
                   DenseFeat("e", 2)]
        sizes = {"expert_dnn_hidden_units": (8, 6), "tower_dnn_hidden_units": (4,)}
        for model in (MMOE(columns, gate_dnn_hidden_units=(5,), **sizes), MMOE(columns, gate_dnn_hidden_units=(),
                                                                                dnn_use_bn=True, **sizes),
                      *(PLE(columns, num_levels=levels, gate_dnn_hidden_units=(5,), **sizes) for levels in (1, 2, 3))):
            moed.export(randomised(model), None, self.path)
            self.assertEqual([entry["name"] for entry in self.config()["inputs"]], ["a", "b", "d", "e"])
        for length in (None, "n"):
            for pool in ("mean", "sum"):
                history = VarLenSparseFeat(SparseFeat("h", 6, embedding_dim=4), 5, pool, length)
                moed.export(randomised(MMOE([*columns, history], **sizes)), None, self.path)
        self.assertEqual(self.config()["inputs"][2]["length"], "n")
        for kind in ("ESMM", "SharedBottom"):
            moed.export(randomised(field_recommenders.deepctr(kind, True)()[0]), None, self.path)
            self.assertEqual([entry["name"] for entry in self.config()["outputs"]], ["ctr", "ctcvr"])

    def test_rechub(self):
        self.package("torch_rechub")
        from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
        from torch_rechub.models.multi_task import MMOE, PLE
        features = [SparseFeature("a", vocab_size=5, embed_dim=4), DenseFeature("d")]
        towers, tasks = [{"dims": [4]}, {"dims": [4]}], ["classification", "regression"]
        for model in (MMOE(features, tasks, 3, {"dims": [6]}, towers),
                      PLE(features, tasks, 1, 2, 1, {"dims": [6]}, towers),
                      PLE(features, tasks, 2, 2, 1, {"dims": [6]}, towers)):
            moed.export(randomised(model), None, self.path)
        for pool, padding in (("mean", 0), ("sum", 2), ("mean", None)):
            history = SequenceFeature("h", 6, 4, pool, padding_idx=padding)
            model = randomised(MMOE([features[0], history, *features[1:]], tasks, 3, {"dims": [6]}, towers))
            moed.export(model, {"h": torch.zeros(1, 5, dtype=torch.long)}, self.path)
        for kind, outputs in (("ESMM", ["cvr", "ctr", "ctcvr"]), ("AITM", ["task0", "task1"]),
                              ("SharedBottom", ["task0", "task1"])):
            model, example, _ = field_recommenders.rechub(kind, history=kind != "ESMM")()
            moed.export(randomised(model), example, self.path)
            self.assertEqual([entry["name"] for entry in self.config()["outputs"]], outputs)


if __name__ == "__main__":
    unittest.main()
