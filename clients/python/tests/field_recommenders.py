"""Multi-task models of DeepCTR-Torch and Torch-RecHub for the table of field.py and the tests."""

import importlib

import torch


def deepctr(kind, history=False, **settings):
    """() -> model, example, settings of export"""
    def make():
        from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
        model = getattr(importlib.import_module(f"deepctr_torch.models.multitask.{kind.lower()}"), kind)
        columns = [SparseFeat("a", 5, embedding_dim=4), DenseFeat("d", 1), SparseFeat("b", 7, embedding_dim=4)]
        columns += [VarLenSparseFeat(SparseFeat("h", 6, embedding_dim=4), 5, "mean")] if history else []
        sizes = {"SharedBottom": {"bottom_dnn_hidden_units": (6,)}, "ESMM": {}}.get(kind, {
            "expert_dnn_hidden_units": (8, 6), "gate_dnn_hidden_units": (5,)})
        return model(columns, tower_dnn_hidden_units=(4,), **sizes, **settings), None, {}
    return make


def rechub(kind, *arguments, history=False):
    def make():
        from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
        from torch_rechub.models import multi_task
        features = [SparseFeature("a", vocab_size=5, embed_dim=4), DenseFeature("d")]
        features += [SequenceFeature("h", 6, 4, "mean", padding_idx=0)] if history else []
        tasks, towers = ["classification", "regression"], [{"dims": [4]}, {"dims": [4]}]
        if kind == "ESMM":  # of categories alone
            users, items = ([SparseFeature(name, vocab_size=5, embed_dim=4) for name in names] for names in ("ab", "c"))
            given = (users, items, {"dims": [4]}, {"dims": [4]})
        elif kind == "AITM":
            given = (features, 2, {"dims": [6]}, towers)
        else:
            given = (features, tasks, *arguments, {"dims": [6]}, towers)
        model = getattr(multi_task, kind)(*given)
        return model, {"h": torch.zeros(1, 5)} if history else None, {}
    return make
