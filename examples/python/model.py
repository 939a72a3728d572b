"""The model that train.py wrote, and a small HTTP service round it."""

import json
import math
import pathlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

# What a feature reader gives: the value of each feature, and its status.
Vector = tuple[dict[str, float | None], dict[str, str]]


class Model:
    def __init__(self, path: str):
        m = json.loads(pathlib.Path(path).read_text())
        self.feature_service, self.features, self.bias = m["feature_service"], m["features"], m["bias"]
        self.terms = list(zip(m["features"], m["mean"], m["scale"], m["weights"], strict=True))

    def score(self, values: dict[str, float | None]) -> float:
        total = self.bias
        for name, mean, scale, weight in self.terms:
            value = values.get(name)
            if value is not None:  # as in training: a missing value counts as an average one
                total += weight * max(-5.0, min(5.0, (value - mean) / scale))
        return 1 / (1 + math.exp(-total))


def serve(model: Model, read: Callable[[dict[str, str]], Vector], port: int) -> None:
    """Answer GET /score?zipcode=…&dob_ssn=… until the process is stopped."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path != "/score":
                return self.answer(404, {"error": "ask for /score"})
            try:
                values, statuses = read(dict(parse_qsl(url.query)))
            except Exception as e:
                return self.answer(502, {"error": str(e)})
            doubtful = {n: statuses[n] for n in model.features if statuses.get(n) not in ("PRESENT", "NULL_VALUE")}
            self.answer(200, {"score": model.score(values), "trusted": not doubtful, "doubtful": doubtful})

        def answer(self, code: int, doc: dict) -> None:
            body = json.dumps(doc).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass  # entity keys do not belong into logs

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"scores at http://127.0.0.1:{server.server_port}/score", flush=True)
        server.serve_forever()
