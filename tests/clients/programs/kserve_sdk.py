"""kserve's SDK: V1 and V2 over HTTP, JSON and binary, and its gRPC client, raw and typed."""

import asyncio
import importlib.metadata
import logging

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from shared import EXPECTED, GRPC, HTTP, IMAGE, MODEL, did

ROW = np.array(IMAGE, np.float32).reshape(1, 1, 28, 28)
logging.disable(logging.CRITICAL)


def request(binary):
    tensor = InferInput("image", [1, 1, 28, 28], "FP32")
    tensor.set_data_from_numpy(ROW, binary_data=binary)
    return InferRequest(MODEL, [tensor], request_id="seven")


def check(answer):
    assert answer.model_name == MODEL and answer.id == "seven", answer
    np.testing.assert_allclose(answer.outputs[0].as_numpy().ravel(), EXPECTED, rtol=1e-6)


async def over_http():
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))
    answer = await v1.infer(HTTP, {"instances": [IMAGE], "routing": True}, model_name=MODEL)
    np.testing.assert_allclose(answer["predictions"][0], EXPECTED, rtol=1e-6)
    assert answer["routing"]["moe"]["experts"]
    assert await v1.is_server_live(HTTP) and await v1.is_model_ready(HTTP, MODEL)
    assert await v2.is_server_live(HTTP) and await v2.is_server_ready(HTTP) and await v2.is_model_ready(HTTP, MODEL)
    for binary in (False, True):
        check(await v2.infer(HTTP, request(binary), model_name=MODEL))


async def over_grpc():
    async with InferenceGRPCClient(GRPC) as client:
        assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready(MODEL)
        for binary in (False, True):
            check(await client.infer(request(binary)))
        try:
            await client.infer(InferRequest("nobody", request(True).inputs))
        except Exception as error:  # grpc's
            assert "NOT_FOUND" in str(error), error


asyncio.run(over_http())
asyncio.run(over_grpc())
did(importlib.metadata.version("kserve"), "health; V1; V2 with JSON and binary tensors; gRPC with raw and typed tensors, an error")
