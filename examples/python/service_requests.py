"""A model service that reads its features from `hearth serve` with plain requests.

    python service_requests.py model.json [port]

HEARTH_URL is where hearth serves (http://127.0.0.1:6566), HEARTH_TOKEN its read token if
it has one.
"""

import os
import sys

import requests

from model import Model, Vector, serve

URL = os.environ.get("HEARTH_URL", "http://127.0.0.1:6566")


def reader(model: Model):
    session = requests.Session()  # keeps its connections
    if token := os.environ.get("HEARTH_TOKEN"):
        session.headers["Authorization"] = f"Bearer {token}"

    def read(entity: dict[str, str]) -> Vector:
        answer = session.post(f"{URL}/v1/features", timeout=2, json={
            "feature_service": model.feature_service,
            "entities": {name: [value] for name, value in entity.items()},
        })
        if answer.status_code != 200:
            raise RuntimeError(f"hearth: {answer.status_code} {answer.json()['message']}")
        doc = answer.json()
        # One list per feature, with a value per entity; pandas.DataFrame(dict(zip(…))) for many.
        values = {n: column[0] for n, column in zip(doc["features"], doc["values"], strict=True)}
        statuses = {n: doc["status_names"][column[0]] for n, column in zip(doc["features"], doc["statuses"], strict=True)}
        return values, statuses

    return read


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    credit = Model(sys.argv[1])
    serve(credit, reader(credit), int(sys.argv[2]) if len(sys.argv) == 3 else 8081)
