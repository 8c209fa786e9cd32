"""HTTP client of the moed server: standard library and numpy only.

One Client keeps one connection alive and belongs to one thread; make one per thread.

    client = Client("http://127.0.0.1:8080")
    client.predict("fashion-mnist", images)["predictions"]     KServe V1, JSON
    client.infer("fashion-mnist", images)["probabilities"]     Open Inference Protocol V2, binary tensors
    client.infer("adult", {"numeric": rows, "job": numbers})   the same for a model of several inputs
"""

import http.client
import json
from urllib.parse import quote, urlsplit

import numpy as np

# Datatypes of the Open Inference Protocol that numpy has. BF16 is numpy's missing one, see _decode.
NUMPY_TYPES = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
               "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"


class MoedError(Exception):
    """Base of everything this client raises."""


class RequestError(MoedError):
    """The server answered, and refused: `status` and the text of its "error"."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Unreachable(MoedError):
    """No answer: no connection, a timeout, or one that broke off."""


class ProtocolError(MoedError):
    """The answer is not what the protocol promises."""


class Client:
    def __init__(self, url, timeout=60.0):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        connection_type = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._connection = connection_type(parts.hostname, parts.port, timeout=timeout)
        self._metadata = {}

    def close(self):
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # --- predictions --------------------------------------------------------------------------------------------

    def predict(self, model, rows, routing=False, version=None):
        """{"predictions": array} for the rows of a model with one input, or {"predictions": {output: array}} if it has
        several outputs; with routing=True also "routing", by MoE layer:
        {"experts": array (rows, k), "weights": array (rows, k)}."""
        body = {"instances": np.asarray(rows).tolist(), **({"routing": True} if routing else {})}
        answer = self._json("POST", f"/v1/{_model_path(model, version)}:predict", body)
        result = {"predictions": _predictions(_member(answer, "predictions"))}
        if routing:
            result["routing"] = {layer: {key: np.asarray(values) for key, values in chosen.items()}
                                 for layer, chosen in _member(answer, "routing").items()}
        return result

    def infer(self, model, rows, outputs=None, binary=True, version=None):
        """Dict of output name -> array. `outputs` names those wanted (None: all), such as "routing.moe.experts".

        rows: an array, or a dict of input name -> array for a model of several inputs. Arrays are converted to the type
        the model asks for. binary=False sends and asks for JSON numbers instead.
        """
        tensors = self._tensors(model, version, rows)
        request, data = _inference_request(tensors, outputs, binary)
        path = f"/v2/{_model_path(model, version)}/infer"
        headers = {"Content-Type": "application/json"}
        if binary:
            headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(request))}
        headers, content = self._exchange("POST", path, request + data, headers)
        return _decode_outputs(headers, content)

    # --- models and state ---------------------------------------------------------------------------------------

    def models(self):
        """Names of the models the server lists."""
        models = _member(self._json("GET", "/v1/models"), "models")
        return [model["name"] if isinstance(model, dict) else model for model in models]

    def metadata(self, model, version=None):
        return self._json("GET", f"/v2/{_model_path(model, version)}")

    def routing(self, model, version=None):
        """Per-expert routing statistics since the model was loaded."""
        return self._json("GET", f"/v2/{_model_path(model, version)}/routing")

    def ready(self, model=None):
        """Whether the server, or one model, takes requests. False also when there is no server."""
        path = "/v2/health/ready" if model is None else f"/v2/{_model_path(model, None)}/ready"
        try:
            self._exchange("GET", path)
        except (RequestError, Unreachable):
            return False
        return True

    # --- one exchange -------------------------------------------------------------------------------------------

    def _tensors(self, model, version, rows):
        """(name, datatype, array) for each input of the model, whose metadata is asked for once."""
        key = (model, version)
        if key not in self._metadata:
            self._metadata[key] = _member(self.metadata(model, version), "inputs")
        types = {_member(entry, "name"): _member(entry, "datatype") for entry in self._metadata[key]}
        if not isinstance(rows, dict) and len(types) == 1:
            rows = {name: rows for name in types}
        if not isinstance(rows, dict) or set(rows) != set(types):
            given = sorted(rows) if isinstance(rows, dict) else "one array"
            raise ValueError(f"{model} takes the inputs {sorted(types)}, not {given}")
        for name, datatype in types.items():
            if datatype not in NUMPY_TYPES:
                raise ProtocolError(f"{model}: input {name} takes {datatype}, which this client cannot send")
        return [(name, datatype, _converted(name, rows[name], datatype)) for name, datatype in types.items()]

    def _json(self, method, path, body=None):
        content = None if body is None else json.dumps(body).encode()
        _, answer = self._exchange(method, path, content, {"Content-Type": "application/json"} if body else {})
        return _parse_json(answer)

    def _exchange(self, method, path, body=None, headers=None):
        """(headers, body) of a 200 answer."""
        response, content = self._send(method, self._prefix + path, body, headers or {})
        if response.status != 200:
            raise RequestError(response.status, _error_text(response, content))
        return response.headers, content

    def _send(self, method, path, body, headers):
        """A server may close an idle connection at any moment, even while we write: then, once, on a new one.

        Sending twice is safe, for no request of this client changes the server.
        """
        reused = self._connection.sock is not None
        try:
            return self._send_once(method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            if not reused:
                raise Unreachable(f"{self.url}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {error}") from error
        try:
            return self._send_once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {error}") from error

    def _send_once(self, method, path, body, headers):
        try:
            self._connection.request(method, path, body=body, headers=headers)
            response = self._connection.getresponse()
            return response, response.read()
        except BaseException:
            # Half an exchange left on the connection would be read as the next one's answer.
            self._connection.close()
            raise


# --- the Open Inference Protocol's bytes ------------------------------------------------------------------------

def _model_path(model, version):
    path = f"models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _predictions(rows):
    """An array of the rows; of rows that are objects, an array for each of their members."""
    if not rows or not isinstance(rows[0], dict):
        return np.asarray(rows)
    return {name: np.asarray([_member(row, name) for row in rows]) for name in rows[0]}


def _converted(name, rows, datatype):
    """The rows in the type that the input takes. A model that takes categories takes no fractions of them."""
    given = np.asarray(rows)
    with np.errstate(invalid="ignore"):
        array = np.ascontiguousarray(given, dtype=NUMPY_TYPES[datatype])
    if array.dtype.kind in "iu" and not np.array_equal(array, given):
        raise ValueError(f"input {name} takes {datatype}, and not every number given is one")
    return array


def _inference_request(tensors, outputs, binary):
    """(JSON, tensor bytes) of an inference request for (name, datatype, array) each."""
    request, data = {"inputs": []}, b""
    for name, datatype, array in tensors:
        description = {"name": name, "shape": list(array.shape), "datatype": datatype}
        if binary:
            description["parameters"] = {"binary_data_size": array.nbytes}
            data += array.tobytes()
        else:
            description["data"] = array.ravel().tolist()
        request["inputs"].append(description)
    if outputs is not None:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    elif binary:
        request["parameters"] = {"binary_data_output": True}
    return json.dumps(request).encode(), data


def _decode_outputs(headers, content):
    """Dict of name -> array: JSON first, then the binary tensors in the order of the JSON."""
    length = headers.get(JSON_LENGTH_HEADER)
    json_bytes = len(content) if length is None else _length(length, len(content))
    answer, offset, arrays = _parse_json(content[:json_bytes]), json_bytes, {}
    for output in _member(answer, "outputs"):
        name, datatype, shape = (_member(output, key) for key in ("name", "datatype", "shape"))
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[name] = np.asarray(_member(output, "data"), dtype=NUMPY_TYPES.get(datatype)).reshape(shape)
        else:
            arrays[name] = _decode(name, datatype, shape, content[offset:offset + size], size)
            offset += size
    return arrays


def _length(text, limit):
    if not text.isdigit() or int(text) > limit:
        raise ProtocolError(f"{JSON_LENGTH_HEADER} is {text!r} in an answer of {limit} bytes")
    return int(text)


def _decode(name, datatype, shape, data, size):
    if len(data) != size:
        raise ProtocolError(f"output {name}: {size} bytes announced, {len(data)} sent")
    try:
        if datatype == "BF16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.frombuffer(data, NUMPY_TYPES[datatype]).reshape(shape)
    except (KeyError, ValueError) as error:
        raise ProtocolError(f"output {name}: {datatype} {shape} in {size} bytes: {error}") from None


def _parse_json(content):
    try:
        return json.loads(content)
    except ValueError as error:
        raise ProtocolError(f"the answer is not JSON: {error}") from None


def _member(answer, key):
    try:
        return answer[key]
    except (KeyError, TypeError):
        raise ProtocolError(f"the answer has no {key!r}") from None


def _error_text(response, content):
    """The server's own words; the reason phrase when something in between answered."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return response.reason or "no explanation"
