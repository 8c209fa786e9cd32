"""What one would otherwise serve such a checkpoint with: FastAPI and PyTorch, one process.

    BENCH_MODEL=deploy/models/fashion-mnist python3 -m uvicorn fastapi_app:app
"""

import os

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from moed.load import load

torch.set_num_threads(1)
model = load(os.environ["BENCH_MODEL"])
shape = model.config["input"]["shape"]
app = FastAPI()


# async: a thread per request would cost more than the prediction.
@app.post("/predict")
async def predict(request: Request):
    instances = (await request.json())["instances"]
    with torch.inference_mode():
        rows = torch.tensor(instances, dtype=torch.float32).reshape(-1, *shape)
        return JSONResponse({"predictions": model(rows).tolist()})
