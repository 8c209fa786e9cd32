"""A multi-task recommender (MMoE): numbers and categories in, experts that two tasks share by gates of their own.

    python3 examples/multi_task.py && moed inspect multi-task
"""
from torch import nn

import moed
from moed.nn import Gate, Input, MultiGateMoE, MultiTask, Output, Select

MEAN, STD = [38.6, 1.9e5, 10, 1e3, 87, 40], [14, 1e5, 2.6, 7e3, 4e2, 12]
inputs = {"numeric": Input((6,), preprocess={"mean": MEAN, "std": STD}),
          "occupation": Input((1,), categories=15, layers=nn.Embedding(15, 8)),
          "country": Input((1,), categories=42, layers=nn.Embedding(42, 8))}
experts = [nn.Sequential(nn.Linear(22, 16), nn.ReLU()) for _ in range(8)]
tasks = ["income", "marital"]
outputs = {task: Output(nn.Sequential(Select(index), nn.Linear(16, 2), nn.Softmax(dim=-1)), labels=["no", "yes"])
           for index, task in enumerate(tasks)}
model = MultiTask(inputs, nn.Sequential(), outputs)
model.layers.add_module("experts", MultiGateMoE(experts, {task: Gate(nn.Linear(22, 8)) for task in tasks}))
# ... train it: model({"numeric": rows, "occupation": numbers, "country": numbers})["income"] ...
moed.export(model, None, "multi-task")
