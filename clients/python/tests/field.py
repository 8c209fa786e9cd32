"""The real makes of Mixture-of-Experts beside their checkpoints: a table, made by one command.

    python3 -m tests.field     in clients/python; MOED_BINARY names the engine; prints Markdown

Every row exports a system, serves it, and compares answers and chosen experts on random rows. Rows marked "package" run
the package's own class and are left out where that is not installed; the others are classes of the same shape, here and
in foreign.py. What has to be refused is refused.
"""

import argparse
import importlib
import math
import os
import sys
import tempfile
from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional

import moed
from moed import adapters, engine, verify
from moed.graph import Add
from moed.nn import GLU, Capacity, Gate, MoE
from recipes import backbones
from tests import ENGINE, field_recommenders, field_whole, foreign, test_adapters, test_own_attention, written_models

SIZE, COUNT, POSITIONS, ROWS = 16, 4, 6, 64


class Row(NamedTuple):
    system: str
    how: str                     # "as it is", "adapter", "three lines", "refused"
    make: Callable               # () -> module, example or None, settings of export
    adapter: Optional[Callable] = None
    package: str = ""            # that has to be installed
    why: str = ""
    adapts: Any = None           # the class that the adapter is for; None: Routed


MODELS = "transformers.models"
MOE, LOCAL = test_adapters.MOE, test_adapters.LOCAL
DEEPSEEK = {**MOE, "n_routed_experts": 8, "n_shared_experts": 1}
DBRX = {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 16}
# family, config, block, settings, what is said of it
MORE = (
    ("cohere2_moe", "Cohere2MoeConfig", "Cohere2MoeSparseMoeBlock", MOE, ""),
    ("deepseek_v2", "DeepseekV2Config", "DeepseekV2Moe", {**DEEPSEEK, "topk_method": "greedy"}, ", greedy"),
    ("deepseek_v3", "DeepseekV3Config", "DeepseekV3MoE", {**DEEPSEEK, "n_group": 2, "topk_group": 1}, ", 2/1 groups"),
    ("deepseek_v3", "DeepseekV3Config", "DeepseekV3MoE",
     {**DEEPSEEK, "n_group": 1, "topk_group": 1, "norm_topk_prob": False}, ", no groups, not normalised"),
    ("dbrx", "DbrxConfig", "DbrxFFN",
     {"d_model": 16, "ffn_config": {**DBRX, "moe_normalize_expert_weights": 2.0}}, ", p = 2"),
    ("phimoe", "PhimoeConfig", "PhimoeSparseMoeBlock", {**LOCAL, "router_jitter_noise": 0.2}, ", jitter 0.2"))
REFUSED = (
    ("nllb_moe", "NllbMoeConfig", "NllbMoeSparseMLP", (24,), {"d_model": 16, "num_experts": 4},
     "its own experts read a mask as indices; three lines, as above, say what NLLB is"),
    ("zaya", "ZayaConfig", "ZayaSparseMoeBlock", (0,), {"num_experts": 4}, "the router has a state across layers"),
    ("kolibri1", "Kolibri1Config", "Kolibri1SparseMoeBlock", (), MOE, "a bias on the logits, but sigmoid weights"),
    ("inkling", "InklingTextConfig", "InklingMoE", (), {**MOE, "n_routed_experts": 4},
     "shared experts inside the normalisation"))


# ---- re-stated systems whose packages PyPI does not have, or that need a GPU ----

class Routed(nn.Module):
    """Experts and a router under names of their own; `policy` makes (weights, indices) of a group's logits."""

    def __init__(self, policy, experts=None, groups=0):
        super().__init__()
        self.policy, self.groups = policy, groups
        self.pick = nn.Linear(SIZE, COUNT, bias=False)
        self.workers = nn.ModuleList(experts or [expert() for _ in range(COUNT)])

    def forward(self, x):
        parts = x.split(self.groups or len(x))  # so many rows are a group
        return torch.cat([self.group(part.reshape(-1, SIZE)) for part in parts]).reshape(x.shape)

    def group(self, x):
        weights, indices = self.policy(self.pick(x))
        output = torch.zeros_like(x)
        for index, worker in enumerate(self.workers):
            items, slots = torch.where((indices == index) & (weights != 0))
            output = output.index_add(0, items, weights[items, slots, None] * worker(x[items]))
        return output


def expert():
    return nn.Sequential(nn.Linear(SIZE, 24), nn.GELU(), nn.Linear(24, SIZE))


class ReLU2(nn.Module):
    def forward(self, x):
        return functional.relu(x).square()


def top_logits(logits):
    """FastMoE's NaiveGate, Granite, Shazeer."""
    values, indices = logits.topk(2)
    return values.softmax(-1), indices


def top_share(logits):
    """Tutel, DeepSpeed top-2, GShard without drops."""
    values, indices = logits.softmax(-1).topk(2)
    return values / values.sum(-1, keepdim=True), indices


def top_share_of_three(logits):
    values, indices = logits.softmax(-1).topk(3)
    return values / values.sum(-1, keepdim=True), indices


def top_one(logits):
    """DeepSpeed top-1, Switch."""
    return logits.softmax(-1).topk(1)


def dropping(renormalize=False, order="choice", k=2, factor=1.0):
    """GShard, DeepSpeed and NLLB (dropped, then normalised), V-MoE (batch-prioritised): who is placed first."""
    def policy(logits):
        scores = logits.softmax(-1)
        values, indices = scores.topk(k)
        items, choices = torch.arange(len(values)).repeat_interleave(k), torch.arange(k).repeat(len(values))
        best = {"choice": items, "item": items * k + choices, "score": -values[:, 0][items], "pair": -values.flatten()}
        line = best[order].argsort(stable=True)
        if order in ("choice", "score"):
            line = line[choices[line].argsort(stable=True)]
        taken = functional.one_hot(indices.flatten()[line], COUNT).cumsum(0)
        place = torch.empty(len(line), dtype=torch.long)
        place[line] = taken.gather(1, indices.flatten()[line].unsqueeze(1)).squeeze(1)
        kept = place.reshape(-1, k) <= math.ceil(len(values) * factor / COUNT)
        values = values * kept
        return values / values.sum(-1, keepdim=True).clamp_min(1e-9) if renormalize else values, indices
    return policy


def scaled(logits):
    """Gemma 4: a scale of each expert, after normalising."""
    values, indices = top_share(logits)
    return values * SCALES[indices], indices


SCALES = torch.tensor([0.5, 1.0, 1.5, 2.0])


def root_softplus(logits):
    """DeepSeek-V4."""
    values, indices = functional.softplus(logits).sqrt().topk(2)
    return values / values.sum(-1, keepdim=True), indices


def spread(logits):
    """Soft MoE and expert choice: experts choose items."""
    values, items = logits.softmax(-1).t().topk(2)
    weights = torch.zeros_like(logits.t()).scatter(1, items, values).t()
    return weights, torch.arange(COUNT).expand(len(logits), -1)


def saying(**gate):
    """An adapter of three lines: what the block is."""
    def adapt(block):
        return MoE(list(block.workers), Gate(block.pick, **gate), "positions")
    return adapt


def whole(module):
    """In a model of one's own, as all blocks are."""
    return lambda: (Model(module()), torch.zeros(1, POSITIONS, SIZE), {})


class Model(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.norm, self.block, self.head = nn.LayerNorm(SIZE), block, nn.Linear(SIZE, 5)
        with torch.no_grad():
            self.several = not isinstance(block(torch.zeros(2, POSITIONS, SIZE)), torch.Tensor)

    def forward(self, x):
        result = self.block(self.norm(x))
        hidden = result[0] if self.several else result
        return self.head((x + hidden.reshape(x.shape)).mean(1))


def routed(*args, **settings):
    return whole(lambda: Routed(*args, **settings))


def shape(module, row, **settings):
    return lambda: (module(), torch.zeros(1, *row), settings)


SHARE = {"top_k": 2, "normalize": "sum"}
DROPPED = {"factor": 1.0, "round": "up"}
RESTATED = (
    Row("FastMoE, naive gate", "three lines", routed(top_logits), saying(score="none", top_k=2, normalize="softmax")),
    Row("Tutel, top-2; DeepSpeed top-2 without drops", "three lines", routed(top_share), saying(**SHARE)),
    Row("Tutel, top-3", "three lines", routed(top_share_of_three), saying(top_k=3, normalize="sum")),
    Row("Tutel, DeepSpeed, top-1 without drops", "three lines", routed(top_one), saying(top_k=1)),
    Row("DeepSpeed top-k, drop policy probs", "three lines", routed(dropping(True, "pair")),
        saying(**SHARE, capacity=Capacity(**DROPPED, order="pair", renormalize=True))),
    Row("DeepSpeed top-k, drop policy position", "three lines", routed(dropping(True, "item")),
        saying(**SHARE, capacity=Capacity(**DROPPED, order="item", renormalize=True))),
    Row("V-MoE, groups of four images", "three lines", routed(dropping(), groups=4),
        saying(top_k=2, capacity=Capacity(**DROPPED, rows=4))),
    Row("DeepSpeed top-2 with drops; NLLB-MoE, its default", "three lines", routed(dropping(True), groups=1),
        saying(**SHARE, capacity=Capacity(**DROPPED, rows=1, renormalize=True))),
    Row("V-MoE, a group of one image", "three lines", routed(dropping(), groups=1),
        saying(top_k=2, capacity=Capacity(**DROPPED, rows=1))),
    Row("V-MoE as released, Tutel and NLLB batch-prioritised", "three lines", routed(dropping(order="score"), groups=1),
        saying(top_k=2, capacity=Capacity(**DROPPED, rows=1, order="score"))),
    Row("Gemma 4, its experts", "three lines", routed(scaled), saying(**SHARE, expert_scale=SCALES)),
    Row("DeepSeek-V4, its learned router", "three lines", routed(root_softplus),
        saying(score="sqrt_softplus", **SHARE)),
    Row("LongCat-Flash (identity experts)", "three lines",
        routed(top_share, [expert(), expert(), nn.Identity(), nn.Identity()]), saying(**SHARE)),
    Row("Nemotron-H (relu^2)", "three lines", routed(top_share, [
        nn.Sequential(nn.Linear(SIZE, 9, bias=False), ReLU2(), nn.Linear(9, SIZE, bias=False)) for _ in range(COUNT)]),
        saying(**SHARE)),
    Row("expert choice", "refused", routed(spread), why="experts choose items"),
)


def attentive(module):
    gate = moed.nn.AttentiveGate(nn.Sequential(module.gate.fc1, nn.ReLU()), 8, "1", top_k=module.k, normalize="sum")
    gate.query, gate.key = module.query, module.key
    return MoE([nn.Sequential(e.fc1, nn.ReLU(), e.fc2, nn.Softmax(dim=-1)) for e in module.experts], gate)


def filters(expert):
    cubed = [moed.nn.Cube()] if expert.cubed else []
    return nn.Sequential(expert.conv1, *cubed, moed.nn.Sum(-1), moed.nn.Reshape(2, 3), moed.nn.Sum(-1))


PAPERS = (
    Row("arXiv 2302.14703, expectation", "as it is", shape(lambda: foreign.Expectation(5, 12, 3), (12,))),
    Row("arXiv 2302.14703, expectation, 15 experts", "as it is", shape(lambda: foreign.Expectation(15, 12, 3), (12,))),
    *(Row(f"arXiv 2302.14703, top-{k} of 15{' (stochastic in evaluation)' if k == 1 else ''}", "as it is",
          shape(lambda k=k: foreign.Selected(15, 12, 3, k), (12,))) for k in (1, 2, 4)),
    *(Row(f"arXiv 2302.14703, attentive{f', top-{k}' if k < 5 else ''}, its key after a ReLU", "three lines",
          shape(lambda k=k: foreign.Attentive(5, 12, 3, k), (12,)), attentive, adapts=foreign.Attentive)
      for k in (5, 1, 2)),
    *(Row(f"arXiv 2208.02813, synthetic, {kind} filters", "three lines",
          shape(lambda kind=kind: foreign.RoutedPatches(4, kind == "cubed"), (1, 20)), filters,
          why="of the experts, which stack along the rows' axis", adapts=foreign.RoutedPatches.Filters)
      for kind in ("cubed", "linear")),
    Row("arXiv 2208.02813, residual experts, a convolution as router", "as it is",
        shape(lambda: foreign.RoutedImages(4), (3, 8, 8), output_name=["output", None, None, None])),
)
BACKBONES = tuple(
    Row(f"arXiv 2208.02813, {name} for 32x32 images", "as it is", shape(lambda make=make: make(5), (3, 32, 32)),
        why="an expert alone")
    for name, make in (("MobileNetV2", backbones.mobilenetv2), ("ResNet18", backbones.resnet18)))


def hugging_face():
    for family, config, block, settings, *said in (*test_adapters.TRANSFORMERS, *MORE):
        arguments = said.pop() if said and isinstance(said[-1], tuple) else ()
        yield Row(f"transformers {block}{''.join(said)}", "as it is", whole(
            lambda given=(family, config, block, *arguments), settings=settings: test_adapters.of_transformers(
                *given, **settings)), None, "transformers")
    for family, config, block, arguments, settings, why in REFUSED:
        yield Row(f"transformers {block}", "refused", whole(
            lambda given=(family, config, block, *arguments), settings=settings: test_adapters.of_transformers(
                *given, **settings)), None, "transformers", why)
    yield Row("transformers JetMoeMoE (a bias after the sum)", "three lines", whole(
        lambda: test_adapters.of_transformers(
            "jetmoe", "JetMoeConfig", "JetMoeMoE", num_local_experts=4, num_experts_per_tok=2)), jetmoe, "transformers",
        "", f"{MODELS}.jetmoe.modeling_jetmoe.JetMoeMoE")
    switch = f"{MODELS}.switch_transformers.modeling_switch_transformers.SwitchTransformersAttention"
    yield Row("transformers SwitchTransformersAttention (relative positions)", "three lines", whole(
        lambda: test_adapters.of_transformers(
            "switch_transformers", "SwitchTransformersConfig", "SwitchTransformersAttention", True, 0, d_model=SIZE,
            d_kv=4, num_heads=4)), relative, "transformers", "", switch)


def jetmoe(block):
    experts = [nn.Sequential(glu(gate_up), linear(down))
               for gate_up, down in zip(block.input_linear.weight, block.output_linear.weight)]
    gate = Gate(linear(block.router.layer.weight), "none", block.router.top_k, "softmax")
    return nn.Sequential(MoE(experts, gate, "positions"), Add(weight=block.bias.detach()))


def relative(block, row):
    bias = block.compute_bias(row.shape[1], row.shape[1])[0]
    return moed.nn.Attention.of(block.q, block.k, block.v, block.o, heads=block.n_heads, scale=1.0, bias=bias.detach())


def linear(weight):
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight = nn.Parameter(weight.detach())
    return layer


def glu(gate_up):
    layer = GLU(gate_up.shape[1], len(gate_up) // 2, bias=False)
    layer.gate, layer.up = (linear(half) for half in gate_up.chunk(2))
    return layer


def blocks():
    packed = lambda: foreign.PackedExperts(8, 8, 6)  # noqa: E731
    router = lambda *given, **settings: foreign.TopKRouter(given[0], 8, 8, given[1], **settings)  # noqa: E731
    row = (5, 8)
    yield Row("Mixtral, Qwen3-MoE: packed, top-k of a softmax over its sum", "as it is",
              shape(lambda: foreign.Block(router("mixtral", 2), packed()), row))
    yield Row("OLMoE, Qwen2-MoE: top-k of a softmax, a gated shared expert", "as it is", shape(
        lambda: foreign.Block(router("olmoe", 2), packed(), foreign.MLP(8, 5), nn.Linear(8, 1, bias=False)), row))
    yield Row("DeepSeek-V3, GLM-4.5: groups, bias, scale", "as it is", shape(lambda: foreign.Block(router(
        "deepseek-v3", 3, n_group=4, topk_group=2, routed_scaling_factor=2.5), packed()), row))
    yield Row("GPT-OSS: clamped, by turns", "as it is", shape(
        lambda: foreign.Block(router("gpt-oss", 2), foreign.ClampedExperts(8, 8, 6)), row))
    yield Row("Llama 4: the weight multiplies the input", "as it is", shape(lambda: foreign.InputScaled(router(
        "mixtral", 1), packed()), row), why="logits above 17, whose sigmoids are 1, are ties")
    yield Row("Switch: so many positions of a row", "as it is", shape(lambda: foreign.Dropping(4, 8, 6, 2), row))
    for k in (1, 2, 4, 8):
        yield Row(f"davidmrau, k = {k}", "as it is", shape(lambda k=k: foreign.NoisyTopK(8, 8, 3, k), (8,)))
    yield Row("attention of one's own, causal, rotary, grouped", "as it is",
              shape(lambda: test_own_attention.Model(test_own_attention.Separate(), True), row))


def lucidrains(**settings):
    return whole(lambda: importlib.import_module("mixture_of_experts").MoE(SIZE, num_experts=COUNT, hidden_dim=24,
                                                                           **settings))


def st_moe(**settings):
    return whole(lambda: importlib.import_module("st_moe_pytorch").MoE(dim=SIZE, num_experts=COUNT, **settings))


def decoders():
    """Whole, from the numbers of words to a logit for each word at each position."""
    words = torch.zeros(1, POSITIONS, dtype=torch.long)
    for name, settings, *why in (*field_whole.DECODERS, *field_whole.REFUSED):
        said = next((said for key, said in field_whole.SAID.items() if key in settings), "")
        said += ", queries of the whole" if settings.get("q_lora_rank", 8) is None else ""
        yield Row(f"transformers {name}ForCausalLM{said}", "refused" if why else "as it is",
                  lambda name=name, settings=settings: (field_whole.causal_lm(name, **settings), words, {}), None,
                  "transformers", "".join(why))
    yield Row("transformers SwitchTransformersEncoderModel, relative positions, capacity", "as it is",
              lambda: (field_whole.switch_encoder(), words, {}), None, "transformers")
    yield Row("SwinV2-MoE", "refused", shape(field_whole.SwinBlock, (64, SIZE)),
              why="windows are cut and shifted across positions")
    yield Row("Mixtral's decoder layers in a model of one's own, causal, rotary", "as it is",
              shape(field_whole.Decoder, (POSITIONS, SIZE)))
    yield Row("Qwen3-MoE's and GPT-OSS's: q_norm, k_norm, sinks, a window", "as it is", shape(
        lambda: field_whole.Decoder(qk_norm=True, sinks=True, window=3, width=8), (POSITIONS, SIZE)))


deepctr, rechub = field_recommenders.deepctr, field_recommenders.rechub
LUCID, ST, CTR, HUB = "mixture_of_experts", "st_moe_pytorch", "deepctr_torch", "torch_rechub"
PACKAGES = (
    Row("lucidrains MoE, policy all, capacity reached", "as it is",
        lucidrains(second_policy_eval="all", capacity_factor_eval=1.0), None, LUCID),
    Row("lucidrains hierarchical MoE", "refused", whole(lambda: importlib.import_module(
        "mixture_of_experts").HeirarchicalMoE(SIZE, num_experts=(2, 2), second_policy_eval="all")), None, LUCID,
        "mixtures nest"),
    Row("Soft MoE (soft-moe-pytorch)", "three lines", whole(lambda: importlib.import_module("soft_moe_pytorch").SoftMoE(
        SIZE, seq_len=POSITIONS, num_experts=COUNT)), foreign.SlotExperts, "soft_moe_pytorch",
        "a forward() without the moves of weights between devices", "soft_moe_pytorch.soft_moe.SoftMoE"),
    Row("lucidrains MoE as it comes", "refused", lucidrains(), None, LUCID, "random at evaluation"),
    Row("st-moe, top-2, threshold 0", "as it is",
        st_moe(gating_top_n=2, threshold_eval=0.0, capacity_factor_eval=8.0), None, ST),
    Row("st-moe, top-2, threshold 0, drops", "as it is",
        st_moe(gating_top_n=2, threshold_eval=0.0, capacity_factor_eval=1.0), None, ST),
    Row("st-moe, top-3, threshold 0", "as it is",
        st_moe(gating_top_n=3, threshold_eval=0.0, capacity_factor_eval=8.0), None, ST),
    Row("DeepCTR-Torch MMOE", "adapter", deepctr("MMOE"), None, CTR),
    Row("DeepCTR-Torch MMOE with batch norms", "adapter", deepctr("MMOE", dnn_use_bn=True), None, CTR),
    *(Row(f"DeepCTR-Torch PLE, levels: {levels}", "adapter", deepctr("PLE", num_levels=levels), None, CTR)
      for levels in (1, 2, 3)),
    *(Row(f"DeepCTR-Torch {kind}, no mixture", "adapter", deepctr(kind, True), None, CTR)
      for kind in ("ESMM", "SharedBottom")),
    Row("DeepCTR-Torch MMOE with a history", "adapter", deepctr("MMOE", True), None, CTR),
    Row("Torch-RecHub MMOE", "adapter", rechub("MMOE", 3), None, HUB),
    *(Row(f"Torch-RecHub PLE, levels: {levels}", "adapter", rechub("PLE", levels, 2, 1), None, HUB)
      for levels in (1, 2)),
    *(Row(f"Torch-RecHub {kind}, no mixture", "adapter", rechub(kind, history=kind != "ESMM"), None, HUB)
      for kind in ("ESMM", "AITM", "SharedBottom")),
    Row("Torch-RecHub MMOE with a history", "adapter", rechub("MMOE", 3, history=True), None, HUB),
)


def written():
    for model in written_models.MODELS:
        why = "" if model.mixtures else "all experts are run, as in the model"
        yield Row(model.name, "refused" if model.refused else "as it is", lambda model=model: (
            model.make(), model.example, model.settings), None, "", WHY_NOT.get(model.name, why))


WHY_NOT = {"GPT of a tutorial, always noisy": "random at evaluation", "expert choice": "experts choose items",
           "top-p": "as many experts as an item needs", "mixture of depths": "positions are left out",
           "Gumbel-softmax in evaluation": "random at evaluation", "attention to columns": "no mixture",
           "hierarchical, one group": "a tensor is filled part by part",
           "PLE of dicts, one number per row": "rows without an axis",
           "an expert for every pixel, top-2 over channels": "channels first; three lines, of positions",
           "columns of categories in one input": "each is an input of its own in a moed.nn.MultiTask",
           "texts: embedding, masked mean and a loop in one forward": "give the mixture a module of its own",
           "two inputs in one forward": "of several inputs a moed.nn.MultiTask is made"}


def rows():
    return [*PAPERS, *BACKBONES, *hugging_face(), *decoders(), *blocks(), *PACKAGES, *RESTATED, *written()]


# ---- running them ----

class Outcome(NamedTuple):
    difference: Optional[float] = None   # largest, of the largest answer
    same: Optional[float] = None         # items whose experts are the loader's, of all
    refusal: str = ""


def run(row: Row, binary: Optional[str]) -> Outcome:
    """Exports, serves and compares. Raises ExportError where it is refused and should not be."""
    torch.manual_seed(0)
    registered = dict(adapters._adapters)
    if row.adapter is not None:
        moed.register_adapter(row.adapts or Routed)(row.adapter)
    try:
        module, example, settings = row.make()
        module = test_adapters.randomised(module)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model")
            moed.export(module, example, path, **settings)
            return _compared(module, path, binary)
    except moed.ExportError as error:
        if row.how != "refused":
            raise
        return Outcome(refusal=str(error))
    finally:
        adapters._adapters.clear()
        adapters._adapters.update(registered)


def _compared(module: Any, path: str, binary: Optional[str]) -> Outcome:
    loaded = moed.load(path)
    given = {name: _random(entry) for name, entry in zip(loaded.input_names, loaded.inputs)}
    with torch.no_grad():
        expected = _own_answers(module, given, loaded)
        got = loaded(given)
    got = got if isinstance(got, dict) else {loaded.output_names[0]: got}
    chosen = verify._experts(loaded)
    if binary is not None:
        with engine.Engine(binary, os.path.dirname(path)) as server:
            answers = server.answers("model", {name: values.numpy() for name, values in given.items()})
        got = {name: torch.from_numpy(values.copy()) for name, values in answers.items()}
    pairs = list(zip(got.values(), expected))
    difference = max(float((a - b.reshape(a.shape)).abs().max() / b.abs().max()) for a, b in pairs)
    same = [(got[name].reshape(values.shape).sort(-1)[0] == values.sort(-1)[0]).float().mean()
            for name, values in chosen.items() if name in got]
    return Outcome(difference, float(min(same)) if same else None)


def _random(entry):
    if entry.categories is not None:
        return torch.randint(0, entry.categories, (ROWS, *entry.shape))
    return torch.randn(ROWS, *entry.shape)


def _own_answers(module, given, loaded):
    whole_model = moed.exporter.whole_model(module, {"h": torch.zeros(1, 5)})
    if hasattr(whole_model, "original"):
        return list(whole_model.original(given).values())
    result = module(given[loaded.input_names[0]])
    return [result if isinstance(result, torch.Tensor) else result[0]]


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.field", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only systems with TEXT in their name")
    only = parser.parse_args().only
    failed = 0
    print("| system | how | tested with | largest difference | experts alike |\n|---|---|---|---|---|")
    for row in [row for row in rows() if only in row.system]:
        try:
            outcome = run(row, ENGINE)
        except ImportError:
            print(f"| {row.system} | {row.how} | not installed | | |", flush=True)
            continue
        except Exception as error:  # a row that fails is a row of the table
            failed += 1
            print(f"| {row.system} | FAILED: {str(error)[:400]} | | | |", flush=True)
            continue
        failed += (row.how == "refused") != bool(outcome.refusal)
        how = row.how + (f": {row.why}" if row.why else "")
        figures = f"{outcome.difference:.1e} | " if outcome.difference is not None else " | "
        figures += f"{outcome.same:.0%}" if outcome.same is not None else ""
        print(f"| {row.system} | {how} | {'package' if row.package else 'shape'} | {figures} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
