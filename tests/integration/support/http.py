"""HTTP by hand: tests can send what no client library would, and see every byte of the answer."""

import json
import select
import socket
import time

HOST = "127.0.0.1"
PATIENCE_SECONDS = 300


class Closed(Exception):
    """The server closed the connection; `received` is the part of the answer that came before."""

    def __init__(self, received):
        super().__init__(f"connection closed after {received!r}")
        self.received = received


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def closes(self):
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """One connection; send() anything, read answers."""

    def __init__(self, port, timeout=PATIENCE_SECONDS, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect((HOST, port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Resets the connection, as a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def is_closed(self):
        """Whether the server has closed this idle connection."""
        if not select.select([self.socket], [], [], 0)[0]:
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True

    def wait_closed(self, seconds=PATIENCE_SECONDS):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.is_closed():
                return True
            time.sleep(0.01)
        return False

    def request(self, method, path, body=b"", headers=None):
        self.send(request_bytes(method, path, body, headers))
        return self.answer(method)

    def answer(self, method="GET"):
        """The next answer, without informational ones."""
        while True:
            head = self._read_until(b"\r\n\r\n").decode("latin-1")
            status_line, *lines = head[:-4].split("\r\n")
            version, status, _ = status_line.split(" ", 2)
            assert version == "HTTP/1.1", status_line
            headers = dict(parse_header(line) for line in lines)
            if int(status) >= 200:
                break
        length = 0 if method == "HEAD" or status == "204" else int(headers["content-length"])
        return Answer(int(status), headers, self._read(length))

    def _read_until(self, mark):
        while mark not in self._unread:
            self._receive()
        head, _, self._unread = self._unread.partition(mark)
        return head + mark

    def _read(self, length):
        while len(self._unread) < length:
            self._receive()
        data, self._unread = self._unread[:length], self._unread[length:]
        return data

    def _receive(self):
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(self._unread)
        self._unread += data


class Client:
    """A typical client: keeps a connection, and opens another if the server has closed it."""

    def __init__(self, port, timeout=PATIENCE_SECONDS):
        self._port, self._timeout, self._connection = port, timeout, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(self, method, path, body=b"", headers=None):
        if self._connection is None or self._connection.is_closed():
            self.close()
            self._connection = Connection(self._port, self._timeout)
        answer = self._connection.request(method, path, body, headers)
        if answer.closes:
            self.close()
        return answer

    def get(self, path, headers=None):
        return self.request("GET", path, b"", headers)

    def post(self, path, body, headers=None):
        """`body` is bytes, or a value to send as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, content, headers)

    def infer(self, model, request, tensors=b"", version=None):
        """POST of an Open Inference Protocol request, with binary tensors, if any."""
        content = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": len(content)} if tensors else {}
        return self.request("POST", f"{model_path('v2', model, version)}/infer", content + tensors, headers)

    def predict(self, model, instances, version=None, **members):
        """POST of a KServe V1 request."""
        return self.post(f"{model_path('v1', model, version)}:predict", {"instances": instances, **members})


def model_path(protocol, model, version=None):
    return f"/{protocol}/models/{model}" + (f"/versions/{version}" if version else "")


def request_bytes(method, path, body=b"", headers=None):
    fields = {"Host": f"{HOST}", **({"Content-Length": len(body)} if body or method == "POST" else {}),
              **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode("latin-1") + b"\r\n" + body


def parse_header(line):
    name, value = line.split(":", 1)
    return name.lower(), value.strip()
