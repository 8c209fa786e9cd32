"""Your own PyTorch model as a checkpoint that `moed serve` loads: ten lines."""
import torch
from torch import nn

import moed

experts = [nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(dim=-1)) for _ in range(4)]
model = moed.nn.MoE(experts, moed.nn.Gate(nn.Linear(16, 4), top_k=2, normalize="sum"))
# ... train it as any other module ...
moed.export(model, torch.zeros(1, 16), "my-model", output_name="probabilities", labels=["red", "green", "blue"])
