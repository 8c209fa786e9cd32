"""Your own PyTorch model as a checkpoint that `moed serve` loads: ten lines."""
from torch import nn
from moed.export import export
from moed.layers import Gate, MoE

experts = [nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(dim=-1)) for _ in range(4)]
model = nn.Sequential()
model.add_module("moe", MoE(experts, Gate(nn.Linear(16, 4), top_k=2, normalize="sum")))
# ... train it as any other module ...
export(model, "my-model", input_shape=(16,), output_name="probabilities", labels=["red", "green", "blue"])
