"""The same service for a team that has Feast: its SDK reads from `hearth serve`.

    python service_feast.py model.json [port]

feature_store.yaml beside this file makes hearth serve the online store. HEARTH_URL and
HEARTH_TOKEN are as for service_requests.py.
"""

import os
import pathlib
import sys
import tempfile

from feast import FeatureStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

from model import Model, Vector, serve

CONFIG = pathlib.Path(__file__).with_name("feature_store.yaml")


def reader(model: Model, repo: str):
    # The SDK keeps a registry file of its own beside its configuration; nothing is in it.
    config = pathlib.Path(repo, "feature_store.yaml")
    config.write_text(CONFIG.read_text())
    if os.environ.get("HEARTH_TOKEN"):
        config.write_text(config.read_text() + "auth: {type: oidc, token_env_var: HEARTH_TOKEN}\n")
    store = FeatureStore(repo_path=repo)

    def read(entity: dict[str, str]) -> Vector:
        answer = store.get_online_features(features=model.features, entity_rows=[entity], full_feature_names=True)
        values, statuses = {}, {}
        proto = answer.proto
        shown = answer.to_dict()
        for name, result in zip(proto.metadata.feature_names.val, proto.results, strict=True):
            ref = name.replace("__", ":", 1)
            values[ref], statuses[ref] = shown[name][0], FieldStatus.Name(result.statuses[0])
        return values, statuses

    return read


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    credit = Model(sys.argv[1])
    os.environ.setdefault("HEARTH_URL", "http://127.0.0.1:6566")
    with tempfile.TemporaryDirectory() as folder:
        serve(credit, reader(credit, folder), int(sys.argv[2]) if len(sys.argv) == 3 else 8082)
