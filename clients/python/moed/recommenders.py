"""Multi-task models of DeepCTR-Torch and Torch-RecHub as MultiTask: what register_adapter is given for whole models.

Their one tensor, or dict, of features becomes an input per feature, categories with their embeddings; every task is an
output. `original` of what is returned runs the library's own model on the same rows, for the comparison of export().
"""

import re
from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import nn

from moed import functions
from moed.adapters import register_adapter
from moed.gates import Gate
from moed.graph import PLAIN, Add, Graph, Links, Multiply
from moed.layers import MultiGateMoE
from moed.modules import CheckpointSequential, Mean, Scale, Select, Sum
from moed.multitask import Input, MultiTask, Output
from moed.ops import require

POOLS = {"sum": Sum, "mean": Mean, "max": functions.Max}
EPSILON = 1e-8  # what DeepCTR-Torch adds to the number of entries


class Recommender(MultiTask):
    """With the model that it was made of, out of reach of what walks modules."""

    def __init__(self, inputs: Dict[str, Input], layers: nn.Module, towers: Dict[str, nn.Module], original: Any):
        super().__init__(inputs, layers, {task: Output(tower) for task, tower in towers.items()})
        self._original = (original,)

    def original(self, rows: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        """The answers of the model that this was made of."""
        answers = self._original[0](rows)
        return {task: answers[:, index:index + 1] for index, task in enumerate(self.output_names)}


def selected(towers: Dict[str, nn.Module]) -> Dict[str, nn.Module]:
    """Each of its own task's mixture, in order."""
    return {task: nn.Sequential(Select(index), tower) for index, (task, tower) in enumerate(towers.items())}


class _Product(nn.Module):
    """Of two towers of the same: that of ESMM's click and conversion."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * self.second(x)


def mmoe(experts: Sequence[nn.Module], gates: Dict[str, nn.Module]) -> nn.Module:
    """Experts and, by task, the networks that give their gate's logits."""
    return _named("experts", MultiGateMoE(experts, {task: Gate(network) for task, network in gates.items()}))


def ple_level(tasks: List[str], specific: Sequence[Sequence[nn.Module]], shared: Sequence[nn.Module],
              gates: Sequence[nn.Module], shared_gate: Optional[nn.Module], stacked: bool) -> nn.Module:
    """One level of PLE; `stacked`: its input is what a level below gives."""
    own = len(specific[0])
    count, common = len(tasks) * own + len(shared), list(range(len(tasks) * own, len(tasks) * own + len(shared)))
    networks = dict(zip(tasks, gates))
    chosen = {task: [*range(index * own, (index + 1) * own), *common] for index, task in enumerate(tasks)}
    seen = {task: index for index, task in enumerate(tasks)}
    if shared_gate is not None:
        networks["shared"], chosen["shared"], seen["shared"] = shared_gate, list(range(count)), len(tasks)
    expert_inputs = [index // own if index < len(tasks) * own else len(tasks) for index in range(count)]
    return MultiGateMoE([*(expert for group in specific for expert in group), *shared],
                        {name: Gate(network) for name, network in networks.items()}, chosen,
                        seen if stacked else None, expert_inputs if stacked else None)


def _named(name: str, module: nn.Module) -> nn.Module:
    layers = nn.Sequential()
    layers.add_module(name, module)
    return layers


def _levels(levels: Sequence[nn.Module]) -> nn.Module:
    stack = nn.Sequential()
    for index, level in enumerate(levels):
        stack.add_module(f"level{index}", level)
    return stack


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


# ---- sequences of categories ----

def pooled(name: str, table: nn.Embedding, pool: str, padding: Optional[int] = None) -> nn.Module:
    """The sum, mean or largest of the embeddings of a list of categories, of which `padding` does not count.

    Where padding stands among the others makes no difference, and clients send the lists that the model is trained on.
    """
    if padding is None:
        return CheckpointSequential([(name, table, None), (f"{name}_{pool}", POOLS[pool](0), None)])
    weight = table.weight.detach().clone()
    if pool == "max":
        weight[padding] -= 1e9
    else:
        weight[padding] = 0
    if pool != "mean":
        return pooled(name, _table(weight), pool)
    real = torch.ones(len(weight), 1)
    real[padding] = 0  # a last column that counts
    size = weight.shape[1]
    steps = [(name, _table(torch.cat([weight, real], dim=1)), None), (f"{name}_sums", Sum(0), None),
             (f"{name}_count", functions.Slice(0, size, size + 1), None), (f"{name}_eps", Add(EPSILON), None),
             (f"{name}_log", functions.Log(), None), (f"{name}_minus", Scale(-1.0), None),
             (f"{name}_share", functions.Exp(), None), (f"{name}_sum", functions.Slice(0, 0, size), None),
             (f"{name}_mean", Multiply(), None)]
    sums, share = Links(result=f"{name}_sums"), Links(result=f"{name}_share")
    return Graph(steps, [PLAIN, sums, PLAIN, PLAIN, PLAIN, PLAIN, share, Links(input=f"{name}_sums"),
                         Links(of=(f"{name}_share",))])


def _table(weight: torch.Tensor) -> nn.Embedding:
    return nn.Embedding.from_pretrained(weight, freeze=False)


# ---- DeepCTR-Torch ----

def _deepctr(model: Any, layers: nn.Module, towers: Dict[str, nn.Module]) -> Recommender:
    inputs: Dict[str, Input] = {}
    # In the order in which DeepCTR puts them side by side: categories, sequences of such, numbers.
    for feature in sorted(model.dnn_feature_columns,
                          key=lambda feature: 2 * hasattr(feature, "dimension") + hasattr(feature, "maxlen")):
        if hasattr(feature, "dimension"):
            inputs[feature.name] = Input((feature.dimension,))
            continue
        table = model.embedding_dict[feature.embedding_name]
        if not hasattr(feature, "maxlen"):
            inputs[feature.name] = Input((1,), feature.vocabulary_size, layers=table)
            continue
        length, name = feature.length_name, _name(feature.name)
        pool = pooled(name, table, feature.combiner, 0 if length is None else None)
        inputs[feature.name] = Input((feature.maxlen,), feature.vocabulary_size, layers=pool, length=length)
        if length is not None and length not in inputs:
            inputs[length] = Input((1,), feature.maxlen + 1)
    columns = [(name, model.feature_index[name]) for name in inputs]
    width = max(end for _, (_, end) in columns)

    def original(rows: Dict[str, torch.Tensor]) -> torch.Tensor:
        table = torch.zeros(len(next(iter(rows.values()))), width)
        for name, (begin, end) in columns:
            table[:, begin:end] = rows[name].float()
        return model(table)
    return Recommender(inputs, layers, towers, original)


def _deepctr_towers(model: Any) -> Dict[str, nn.Module]:
    return {_name(task): nn.Sequential(*([model.tower_dnn[index]] if model.tower_dnn_hidden_units else []),
                                       model.tower_dnn_final_layer[index], model.out[index])
            for index, task in enumerate(model.task_names)}


@register_adapter("deepctr_torch.models.multitask.mmoe.MMOE")
def deepctr_mmoe(model: Any) -> Recommender:
    gates = {_name(task): nn.Sequential(*([model.gate_dnn[index]] if model.gate_dnn_hidden_units else []),
                                        model.gate_dnn_final_layer[index])
             for index, task in enumerate(model.task_names)}
    return _deepctr(model, mmoe(model.expert_dnn, gates), selected(_deepctr_towers(model)))


@register_adapter("deepctr_torch.models.multitask.ple.PLE")
def deepctr_ple(model: Any) -> Recommender:
    levels, deep = [], bool(model.gate_dnn_hidden_units)
    for level in range(model.num_levels):
        gates = [nn.Sequential(*([model.specific_gate_dnn[level][task][0]] if deep else []), final)
                 for task, final in enumerate(model.specific_gate_dnn_final_layer[level])]
        shared_gate = nn.Sequential(*([model.shared_gate_dnn[level]] if deep else []),
                                    model.shared_gate_dnn_final_layer[level])
        levels.append(ple_level([_name(task) for task in model.task_names], model.specific_experts[level],
                                list(model.shared_experts[level][0])[:model.shared_expert_num], gates,
                                shared_gate if level < model.num_levels - 1 else None, level > 0))
    return _deepctr(model, _levels(levels), selected(_deepctr_towers(model)))


@register_adapter("deepctr_torch.models.multitask.sharedbottom.SharedBottom")
def deepctr_shared_bottom(model: Any) -> Recommender:
    return _deepctr(model, _named("bottom", model.bottom_dnn), _deepctr_towers(model))


@register_adapter("deepctr_torch.models.multitask.esmm.ESMM")
def deepctr_esmm(model: Any) -> Recommender:
    click, conversion = (nn.Sequential(*layers, model.out) for layers in (
        (model.ctr_dnn, model.ctr_dnn_final_layer), (model.cvr_dnn, model.cvr_dnn_final_layer)))
    return _deepctr(model, nn.Sequential(), {"ctr": click, "ctcvr": _Product(click, conversion)})


# ---- Torch-RecHub ----

def _rechub(model: Any, layers: nn.Module, towers: Dict[str, nn.Module], example: Any) -> Recommender:
    inputs: Dict[str, Input] = {}
    features = model.features if hasattr(model, "features") else [*model.user_features, *model.item_features]
    for feature in sorted(features, key=lambda feature: not hasattr(feature, "vocab_size")):  # dense ones last
        if not hasattr(feature, "vocab_size"):
            inputs[feature.name] = Input((feature.embed_dim,))
            continue
        table = model.embedding.embed_dict[feature.shared_with or feature.name]
        if hasattr(feature, "pooling"):
            inputs[feature.name] = _sequence(feature, table, example)
        else:
            inputs[feature.name] = Input((1,), feature.vocab_size, layers=table)
    single = {feature.name for feature in features if not hasattr(feature, "pooling")}

    def original(rows: Dict[str, torch.Tensor]) -> torch.Tensor:
        return model({name: values.squeeze(1) if name in single and values.shape[1] == 1 else values
                      for name, values in rows.items()})
    return Recommender(inputs, layers, towers, original)


def _rechub_towers(model: Any) -> Dict[str, nn.Module]:
    return {f"task{index}": nn.Sequential(tower, last)
            for index, (tower, last) in enumerate(zip(model.towers, model.predict_layers))}


def _sequence(feature: Any, table: nn.Embedding, example: Any) -> Input:
    require(feature.pooling in POOLS, "model", f"{feature.name} has the pooling {feature.pooling!r}; there are "
                                               f"{', '.join(POOLS)}")
    require(isinstance(example, dict) and feature.name in example, "example_inputs",
            f"{feature.name} is a sequence; give {{feature: tensor}} as the model takes it, which says how long it is")
    return Input(example[feature.name].shape[1:], feature.vocab_size,
                 layers=pooled(_name(feature.name), table, feature.pooling, feature.padding_idx))


def _logits(gate: Any) -> nn.Module:
    """Of an MLP that ends with a softmax and dropout: what comes before."""
    return nn.Sequential(*(layer for layer in gate.mlp if not isinstance(layer, (nn.Softmax, nn.Dropout))))


@register_adapter("torch_rechub.models.multi_task.mmoe.MMOE")
def rechub_mmoe(model: Any, example: Any = None) -> Recommender:
    gates = {f"task{index}": _logits(gate) for index, gate in enumerate(model.gates)}
    return _rechub(model, mmoe(model.experts, gates), selected(_rechub_towers(model)), example)


@register_adapter("torch_rechub.models.multi_task.ple.PLE")
def rechub_ple(model: Any, example: Any = None) -> Recommender:
    levels = []
    for index, level in enumerate(model.cgc_layers):
        own = level.n_expert_specific
        specific = [list(level.experts_specific)[task * own:(task + 1) * own] for task in range(level.n_task)]
        shared_gate = getattr(level, "gate_shared", None)
        levels.append(ple_level([f"task{task}" for task in range(level.n_task)], specific, level.experts_shared,
                                [_logits(gate) for gate in level.gates_specific],
                                None if shared_gate is None else _logits(shared_gate), index > 0))
    return _rechub(model, _levels(levels), selected(_rechub_towers(model)), example)


@register_adapter("torch_rechub.models.multi_task.shared_bottom.SharedBottom")
def rechub_shared_bottom(model: Any, example: Any = None) -> Recommender:
    return _rechub(model, _named("bottom", model.bottom_mlp), _rechub_towers(model), example)


@register_adapter("torch_rechub.models.multi_task.esmm.ESMM")
def rechub_esmm(model: Any, example: Any = None) -> Recommender:
    conversion, click = (nn.Sequential(tower, nn.Sigmoid()) for tower in (model.tower_cvr, model.tower_ctr))
    towers = {"cvr": conversion, "ctr": click, "ctcvr": _Product(click, conversion)}
    return _rechub(model, nn.Sequential(), towers, example)


class _Transfers(nn.Module):
    """AITM: every task's own network, with what attention takes over from the task before it. (tasks, size)"""

    def __init__(self, model: Any):
        super().__init__()
        self.bottoms, self.info_gates, self.aits = model.bottoms, model.info_gates, model.aits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = [bottom(x) for bottom in self.bottoms]
        for task, (gate, transfer) in enumerate(zip(self.info_gates, self.aits), 1):
            own[task] = transfer(torch.cat([own[task].unsqueeze(1), gate(own[task - 1]).unsqueeze(1)], dim=1))
        return torch.stack(own, dim=1)


@register_adapter("torch_rechub.models.multi_task.aitm.AITM")
def rechub_aitm(model: Any, example: Any = None) -> Recommender:
    towers = {f"task{index}": nn.Sequential(tower, nn.Sigmoid()) for index, tower in enumerate(model.towers)}
    return _rechub(model, _Transfers(model), selected(towers), example)
