"""Python side of the moed inference server.

`import moed` needs numpy only and gives the HTTP client. The rooms that need PyTorch are imported by name, so a
machine that only sends requests never loads it:

    moed.client        talk to a server                         (numpy)
    moed.metrics       H_s, H_u and I(E;Y) of a router          (numpy)
    moed.safetensors   read and write weight files              (numpy)
    moed.gates         Gate, AttentiveGate: who goes where      (torch)
    moed.layers        MoE, MultiGateMoE, and the gates again   (torch)
    moed.noise         routing noise for training               (torch)
    moed.blocks        small modules PyTorch lacks              (torch)
    moed.transformers  transformer blocks                       (torch)
    moed.multitask     several inputs and outputs, CGC, PLE     (torch)
    moed.losses        balance and similarity regularisers      (torch)
    moed.ops           the table of ops                         (torch)
    moed.walk          layers -> a checkpoint's layers          (torch)
    moed.trace, calls  a forward() -> layers                    (torch)
    moed.export        nn.Module -> checkpoint directory        (torch)
    moed.checkpoint    the directory on disk                    (torch)
    moed.load          checkpoint directory -> nn.Module        (torch)
    moed.recipes       trainings that make the shipped models   (torch)
"""

from moed.client import Client, MoedError, RequestError, Unreachable

__version__ = "0.1.0"
__all__ = ["Client", "MoedError", "RequestError", "Unreachable"]
