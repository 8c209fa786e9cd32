"""What a model is built from: mixtures and gates, modules that PyTorch lacks, inputs and outputs."""

from moed.attention import Attention
from moed.functions import Max
from moed.gates import AttentiveGate, Capacity, Gate, Groups, Routing
from moed.layers import MoE, MultiGateMoE
from moed.modules import (
                          GLU,
                          ClassToken,
                          Cube,
                          Mean,
                          PositionEmbedding,
                          Reshape,
                          Residual,
                          RMSNorm,
                          Scale,
                          Select,
                          SelfAttention,
                          Sum,
                          Transpose,
)
from moed.multitask import Input, MultiTask, Output, cgc, ple
from moed.noise import GaussianNoise, InputJitter, UniformNoise
from moed.transformer_layers import encoder_block

__all__ = ["GLU", "Attention", "AttentiveGate", "Capacity", "ClassToken", "Cube", "Gate", "GaussianNoise", "Groups",
           "Input", "InputJitter", "Max", "Mean", "MoE", "MultiGateMoE", "MultiTask", "Output", "PositionEmbedding",
           "RMSNorm", "Reshape", "Residual", "Routing", "Scale", "Select", "SelfAttention", "Sum", "Transpose",
           "UniformNoise", "cgc", "encoder_block", "ple"]
