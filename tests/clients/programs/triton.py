"""Triton's Python clients for HTTP (gevent and asyncio) and gRPC (synchronous and asyncio)."""

import asyncio
import importlib.metadata

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from shared import EXPECTED, GRPC, HTTP, IMAGE, MODEL, did

ROW = np.array(IMAGE, np.float32).reshape(1, 1, 28, 28)
ADDRESS = HTTP.removeprefix("http://")


def tensors(module):
    tensor = module.InferInput("image", [1, 1, 28, 28], "FP32")
    tensor.set_data_from_numpy(ROW)
    names = "probabilities", "routing.moe.experts"
    return {"inputs": [tensor], "outputs": [module.InferRequestedOutput(name) for name in names]}


def check(answer):
    np.testing.assert_allclose(answer.as_numpy("probabilities").ravel(), EXPECTED, rtol=1e-6)
    assert answer.as_numpy("routing.moe.experts").shape == (1, 2)


def synchronous(module, address):
    client = module.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    client.get_server_metadata(), client.get_model_metadata(MODEL), client.get_model_config(MODEL)
    client.get_inference_statistics(MODEL), client.get_model_repository_index()
    check(client.infer(MODEL, **tensors(module)))
    client.unload_model("mnist")
    assert not client.is_model_ready("mnist")
    client.load_model("mnist")
    assert client.is_model_ready("mnist")
    return client


http = synchronous(tritonclient.http, ADDRESS)
check(http.async_infer(MODEL, **tensors(tritonclient.http)).get_result())
check(http.infer(MODEL, **tensors(tritonclient.http), request_compression_algorithm="gzip",
                 response_compression_algorithm="gzip"))
http.update_log_settings(http.get_log_settings())
http.get_trace_settings()
http.close()
synchronous(tritonclient.grpc, GRPC).close()


async def asynchronous(module, address):
    async with module.InferenceServerClient(address) as client:
        parts = tensors(tritonclient.http if module is tritonclient.http.aio else tritonclient.grpc)
        for answer in await asyncio.gather(*(client.infer(MODEL, **parts) for _ in range(20))):
            check(answer)


asyncio.run(asynchronous(tritonclient.http.aio, ADDRESS))
asyncio.run(asynchronous(tritonclient.grpc.aio, GRPC))
did(importlib.metadata.version("tritonclient"), "http, http.aio, grpc and grpc.aio: metadata, statistics, inference, routing, "
    "load and unload; compressed bodies, settings of log and trace")
