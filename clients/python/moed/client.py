"""HTTP client of the moed server: standard library and numpy only.

A Client may be used by any number of threads and after fork(): it keeps one connection for each thread of each process.

    client = Client("http://127.0.0.1:8080")
    client.predict("fashion-mnist", images)["predictions"]     KServe V1, JSON
    client.infer("fashion-mnist", images)["probabilities"]     Open Inference Protocol V2, binary tensors
    client.infer("adult", {"numeric": rows, "job": words})     the same for a model of several inputs
"""

import contextlib
import http.client
import json
import os
import re
import ssl
import threading
import time
import weakref
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import SplitResult, quote

import numpy as np

from moed.connection import BadCoding, Connection, TooLong, address_of, read_answer

# Datatypes of the Open Inference Protocol that numpy has. BF16 is numpy's missing one, see _decode.
NUMPY_TYPES = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
               "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
BUSY = (429, 503)  # refused for the moment
FIRST_WAIT = 0.1  # seconds, where the server does not say
MAX_ANSWER_BYTES = 256 << 20
MAX_TIMEOUT = 1e6  # seconds, which every system can wait
MAX_REASON = 1000  # characters of a refusal
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"


class MoedError(Exception):
    """Base of everything this client raises."""


class RequestError(MoedError):
    """The server answered, and refused: `status` and the text of its "error"."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Unreachable(MoedError):
    """No answer: no connection, a timeout, or one that broke off."""


class ProtocolError(MoedError):
    """The answer is not what the protocol promises."""


class _Connections:
    """Of one process: one for each thread. Those of the process before fork() are its own."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.of_thread = threading.local()
        self.lock = threading.Lock()
        self.all: weakref.WeakSet = weakref.WeakSet()

    def mine(self, url: SplitResult, tls: Optional[ssl.SSLContext]) -> Connection:
        connection: Optional[Connection] = getattr(self.of_thread, "connection", None)
        if connection is None:
            connection = self.of_thread.connection = Connection(url, tls)
            with self.lock:
                self.all.add(connection)
        return connection

    def close(self) -> None:
        with self.lock:
            connections = list(self.all)
        for connection in connections:
            connection.close()


@contextlib.contextmanager
def _of_an_answer() -> Iterator[None]:
    """Around the reading of an answer: what a confused server sends is no error of the caller."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ProtocolError(f"the answer cannot be read: {type(error).__name__}: {error}") from None


class Client:
    """A moed server.

    Args:
        url: "http://host:port" or https, with a path if the server is behind one.
        timeout: seconds that one exchange may take, from connecting to the answer's last byte, sent again or not. Only
            the look-up of the host's name is not in it.
        retries: how often a request that the server refused for the moment (429, 503) is sent again. It waits as long
            as the answer's Retry-After says, else 0.1 s, then 0.2 s and so on. 0: never.
        retry_seconds: the longest that all these waits of one request may be together; what would wait longer, or
            beyond the timeout, fails.
        token: of a server that asks for one (`moed token` makes it).
        max_answer_bytes: an answer of more is not taken, and ends in a ProtocolError.
        ca_file: PEM with the CAs of which one has signed the certificate of an https server; None: the system's.

    Raises:
        ValueError: the URL is none, the timeout no time, the token none.
        OSError: the CA file cannot be used.
    """

    def __init__(self, url: str, timeout: float = 60.0, retries: int = 2, retry_seconds: float = 10.0,
                 token: Optional[str] = None, max_answer_bytes: int = MAX_ANSWER_BYTES, ca_file: Optional[str] = None):
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"the timeout is {timeout!r}, not seconds from more than 0 to {MAX_TIMEOUT:g}")
        if token is not None and not re.fullmatch("[!-~]+", token):
            raise ValueError("the token is empty, or has blanks or characters beyond ASCII")
        self._parts = address_of(url)
        self._tls = ssl.create_default_context(cafile=ca_file) if self._parts.scheme == "https" else None
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self.retry_seconds = retry_seconds
        self.max_answer_bytes = max_answer_bytes
        self._always = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._prefix = self._parts.path.rstrip("/")
        self._metadata: Dict[Tuple[str, Optional[str]], List[dict]] = {}
        self._connections = _Connections()

    def _connection(self) -> Connection:
        connections = self._connections
        if connections.process != os.getpid():  # changed as one, so that no thread can see half of it
            connections = self._connections = _Connections()
        return connections.mine(self._parts, self._tls)

    def close(self) -> None:
        """Closes the connections of all threads of this process; the next request opens new ones."""
        if self._connections.process == os.getpid():
            self._connections.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- predictions --------------------------------------------------------------------------------------------

    def predict(self, model: str, rows: Any, routing: bool = False, version: Optional[str] = None) -> Dict[str, Any]:
        """Predictions as JSON, by KServe's V1 protocol.

        Args:
            model: its name.
            rows: what numpy makes an array of, for the model's one input. Of several {input: such}, or a list of rows
                that are {input: value}. A value may be a word where the model has some for its categories, and None
                where it has a value for what is missing.
            routing: also give each row's experts.
            version: one of the model's versions; None: the latest.

        Shape:
            rows: [rows, ...]

        Returns:
            {"predictions": array}, or {"predictions": {output: array}} if the model has several outputs; with routing
            also "routing", by MoE layer: {"experts": [rows, k], "weights": [rows, k]}.

        Raises:
            RequestError, Unreachable, ProtocolError
        """
        columns = isinstance(rows, dict)
        body = {"inputs" if columns else "instances": _plain(rows), **({"routing": True} if routing else {})}
        answer = self._json("POST", f"/v1/{_model_path(model, version)}:predict", body)
        with _of_an_answer():
            found = _member(answer, "outputs" if columns else "predictions")
            result: Dict[str, Any] = {"predictions": _predictions(found)}
            if routing:
                result["routing"] = {layer: {key: np.asarray(values) for key, values in chosen.items()}
                                     for layer, chosen in _member(answer, "routing").items()}
            return result

    def infer(self, model: str, rows: Any, outputs: Optional[Sequence[str]] = None, binary: bool = True,
              version: Optional[str] = None) -> Dict[str, np.ndarray]:
        """Answers as binary tensors, by the Open Inference Protocol V2.

        Args:
            model: its name.
            rows: what numpy makes an array of, or {input: such} for a model of several inputs. Arrays are converted to
                the type that the model asks for. Categories that have words may be given as words or as integers; None
                stands for a missing value where the model has one for it.
            outputs: names of those wanted, such as "routing.moe.experts"; None: all but the routing.
            binary: False sends and asks for JSON numbers instead.
            version: one of the model's versions; None: the latest.

        Shape:
            rows: [rows, ...]

        Returns:
            {output: array}, [rows, ...] each.

        Raises:
            ValueError: the inputs are others, numbers given for categories are not whole, words are mixed with numbers,
                or a value is None and the model has none for it.
            RequestError, Unreachable, ProtocolError
        """
        tensors = self._tensors(model, version, rows)
        request, data = _inference_request(tensors, outputs, binary)
        path = f"/v2/{_model_path(model, version)}/infer"
        headers = {"Content-Type": "application/json"}
        if binary:
            headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(request))}
        answered, content = self._exchange("POST", path, request + data, headers)
        with _of_an_answer():
            return _decode_outputs(answered, content)

    # --- models and state ---------------------------------------------------------------------------------------

    def models(self) -> List[str]:
        """Names of the models the server lists."""
        models = _member(self._json("GET", "/v1/models"), "models")
        with _of_an_answer():
            return [model["name"] if isinstance(model, dict) else model for model in models]

    def metadata(self, model: str, version: Optional[str] = None) -> Dict[str, Any]:
        """What the model takes and gives."""
        return self._json("GET", f"/v2/{_model_path(model, version)}")

    def routing(self, model: str, version: Optional[str] = None) -> Dict[str, Any]:
        """Per-expert routing statistics since the model was loaded."""
        return self._json("GET", f"/v2/{_model_path(model, version)}/routing")

    def ready(self, model: Optional[str] = None) -> bool:
        """Whether the server, or one model, takes requests. False also when there is no server."""
        path = "/v2/health/ready" if model is None else f"/v2/{_model_path(model, None)}/ready"
        try:
            self._exchange("GET", path, retries=0)
        except (RequestError, Unreachable):
            return False
        return True

    # --- one exchange -------------------------------------------------------------------------------------------

    def _tensors(self, model: str, version: Optional[str], rows: Any) -> List[Tuple[str, str, np.ndarray]]:
        """(name, datatype, array) for each input of the model, whose metadata is asked for once."""
        key = (model, version)
        if key not in self._metadata:
            self._metadata[key] = _member(self.metadata(model, version), "inputs")
        with _of_an_answer():
            types = {_member(entry, "name"): _member(entry, "datatype") for entry in self._metadata[key]}
        if not isinstance(rows, dict) and len(types) == 1:
            rows = {name: rows for name in types}
        if not isinstance(rows, dict) or set(rows) != set(types):
            given = sorted(rows) if isinstance(rows, dict) else "one array"
            raise ValueError(f"{model} takes the inputs {sorted(types)}, not {given}")
        for name, datatype in types.items():
            if datatype != "BYTES" and datatype not in NUMPY_TYPES:
                raise ProtocolError(f"{model}: input {name} takes {datatype}, which this client cannot send")
        return [(entry["name"], *_converted(entry, rows[entry["name"]])) for entry in self._metadata[key]]

    def _json(self, method: str, path: str, body: Union[dict, None] = None) -> Any:
        content = None if body is None else _json_bytes(body)
        _, answer = self._exchange(method, path, content, {"Content-Type": "application/json"} if body else {})
        return _parse_json(answer)

    def _exchange(self, method: str, path: str, body: Optional[bytes] = None,
                  headers: Optional[Mapping[str, str]] = None, retries: Optional[int] = None
                  ) -> Tuple[http.client.HTTPMessage, bytes]:
        """(headers, body) of a 200 answer. Sending again is safe, for no request of this client changes the server."""
        left, again = self.retry_seconds, self.retries if retries is None else retries
        end = time.monotonic() + self.timeout
        for attempt in range(again + 1):
            response, content = self._send(method, self._prefix + path, body, headers or {}, end)
            if response.status == 200:
                return response.headers, content
            wait = _wait(response, attempt)
            if response.status not in BUSY or attempt == again or wait > min(left, end - time.monotonic()):
                break
            left -= wait
            time.sleep(wait)
        raise RequestError(response.status, _error_text(response, content))

    def _send(self, method: str, path: str, body: Optional[bytes], headers: Mapping[str, str], end: float
              ) -> Tuple[http.client.HTTPResponse, bytes]:
        try:
            return self._send_again(method, path, body, {**self._always, **headers}, end)
        except TooLong:
            raise ProtocolError(f"{self.url}: an answer of more than {self.max_answer_bytes} bytes; Client's "
                                "max_answer_bytes bounds it") from None
        except BadCoding as error:
            raise ProtocolError(f"{self.url}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {error}") from error

    def _send_again(self, method: str, path: str, body: Optional[bytes], headers: Mapping[str, str], end: float
                    ) -> Tuple[http.client.HTTPResponse, bytes]:
        """A server may close an idle connection at any moment, even while we write: then, once, on a new one."""
        connection = self._connection()
        connection.begin(end)
        reused = connection.sock is not None
        try:
            return self._send_once(connection, method, path, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not reused:
                raise
        return self._send_once(connection, method, path, body, headers)

    def _send_once(self, connection: Connection, method: str, path: str, body: Optional[bytes],
                   headers: Mapping[str, str]) -> Tuple[http.client.HTTPResponse, bytes]:
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            return response, read_answer(response, self.max_answer_bytes)
        except BaseException:
            # Half an exchange left on the connection would be read as the next one's answer.
            connection.close()
            raise


def _number(text: str) -> Optional[int]:
    """Of a header: digits. int() also takes blanks, underscores, signs and the digits of other scripts."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _wait(response: http.client.HTTPResponse, attempt: int) -> float:
    """Seconds until a refused request is sent again."""
    seconds = _number(response.headers.get("Retry-After", ""))
    return FIRST_WAIT * 2 ** attempt if seconds is None else float(seconds)


# --- the Open Inference Protocol's bytes ------------------------------------------------------------------------

def _model_path(model, version):
    for name in (model, "latest" if version is None else str(version)):
        if not name.strip("."):
            raise ValueError(f"{name!r} cannot be a name: in a path it would be a step up")
    path = f"models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _predictions(rows):
    """An array of the rows, or for each output if there are several."""
    if isinstance(rows, dict):  # columns
        return {name: np.asarray(column) for name, column in rows.items()}
    if not rows or not isinstance(rows[0], dict):
        return np.asarray(rows)
    return {name: np.asarray([_member(row, name) for row in rows]) for name in rows[0]}


def _plain(rows):
    """What json can write: arrays and numpy's numbers, wherever they are, as lists and numbers."""
    if isinstance(rows, dict):
        return {name: _plain(value) for name, value in rows.items()}
    if isinstance(rows, (list, tuple)):
        return [_plain(value) for value in rows]
    return rows if rows is None or isinstance(rows, (str, int, float)) else np.asarray(rows).tolist()


def _json_bytes(document):
    try:
        return json.dumps(document, allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(f"JSON cannot hold the rows, but infer(), which sends binary tensors, can: {error}") from None


def _converted(entry, rows):
    """(datatype, array) of what the input takes. A model that takes categories takes no fractions of them."""
    name, datatype = entry["name"], entry["datatype"]
    given = _given(name, rows, entry.get("parameters", {}))
    if given.dtype.kind == "O":
        return datatype, _words(name, given, datatype)
    datatype = "INT32" if datatype == "BYTES" else datatype  # of the categories that have words
    with np.errstate(invalid="ignore"):
        array = np.ascontiguousarray(given, dtype=NUMPY_TYPES[datatype])
    if array.dtype.kind in "iu" and not np.array_equal(array, given):
        raise ValueError(f"input {name} takes {datatype}, and not every number given is one")
    return datatype, array


def _given(name, rows, values):
    """An array of numbers, or of objects if there are words. The model's own value is where None was: binary tensors
    have no null."""
    given = np.asarray(rows)
    if given.dtype.kind not in "OSU":
        return given
    given = np.asarray(rows, dtype=object)  # else numpy makes texts of numbers that are beside texts
    words = any(isinstance(value, (str, bytes)) for value in given.flat)
    missing = np.array([value is None for value in given.flat], dtype=bool).reshape(given.shape)
    if missing.any():
        if "missing" not in values:
            raise ValueError(f"input {name}: element {int(missing.argmax())} is None, which the model has no value for")
        instead = values["missing"]
        given = np.where(missing, values["words"][int(instead)] if words and "words" in values else instead, given)
    return given if words else np.asarray(given.tolist())


def _words(name, given, datatype):
    """An array of bytes as objects."""
    if datatype != "BYTES":
        raise ValueError(f"input {name} takes {datatype}, not words")
    for index, value in enumerate(given.flat):
        if not isinstance(value, (str, bytes)):
            raise ValueError(f"input {name}: element {index} is {value!r}, and others are words")
    return np.array([value.encode() if isinstance(value, str) else value for value in given.flat],
                    dtype=object).reshape(given.shape)


def _inference_request(tensors, outputs, binary):
    """(JSON, tensor bytes) of an inference request for (name, datatype, array) each."""
    request, data = {"inputs": []}, b""
    for name, datatype, array in tensors:
        description = {"name": name, "shape": list(array.shape), "datatype": datatype}
        if binary:
            content = _bytes(array)
            description["parameters"] = {"binary_data_size": len(content)}
            data += content
        else:
            description["data"] = [value.decode() if isinstance(value, bytes) else value
                                   for value in array.ravel().tolist()]
        request["inputs"].append(description)
    if outputs is not None:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    elif binary:
        request["parameters"] = {"binary_data_output": True}
    return _json_bytes(request), data


def _bytes(array):
    """A binary tensor; of words each has its length before it."""
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(len(word).to_bytes(4, "little") + word for word in array.flat)


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
    length = _number(text)
    if length is None or length > limit:
        raise ProtocolError(f"{JSON_LENGTH_HEADER} is {text!r} in an answer of {limit} bytes")
    return length


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
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer is not JSON: {error}") from None


def _member(answer, key):
    try:
        return answer[key]
    except (KeyError, TypeError):
        raise ProtocolError(f"the answer has no {key!r}") from None


def _error_text(response, content):
    """The server's own words; the reason phrase when something in between answered."""
    try:
        error = json.loads(content)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)  # OpenAI's routes have an object
        return text if len(text) <= MAX_REASON else text[:MAX_REASON] + "..."
    except (ValueError, KeyError, TypeError, RecursionError):
        return response.reason or "no explanation"
