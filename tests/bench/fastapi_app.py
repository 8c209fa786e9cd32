"""The usual way to serve such a checkpoint: FastAPI and PyTorch, one process.

    BENCH_MODEL=deploy/models/fashion-mnist python3 -m uvicorn fastapi_app:app

It reads and answers KServe V1; of a model with several inputs and outputs, the Open Inference Protocol's JSON.
"""

import os

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from moed.loader import load

torch.set_num_threads(1)
model = load(os.environ["BENCH_MODEL"])
app = FastAPI()


def read(body):
    if "inputs" in body:
        return {entry["name"]: torch.tensor(entry["data"], dtype=torch.float32).reshape(entry["shape"])
                for entry in body["inputs"]}
    return torch.tensor(body["instances"], dtype=torch.float32).reshape(-1, *model.config["input"]["shape"])


def written(answers):
    if isinstance(answers, dict):
        return {"outputs": [{"name": name, "datatype": "FP32", "shape": answer.shape, "data": answer.flatten().tolist()}
                            for name, answer in answers.items()]}
    return {"predictions": answers.tolist()}


# async: a thread per request would cost more than the prediction.
@app.post("/predict")
async def predict(request: Request):
    body = await request.json()
    with torch.inference_mode():
        return JSONResponse(written(model(read(body))))
