"""Feast's materialize of SOURCE into REDIS; prints its seconds, without the imports."""

import json
import os
import time
from datetime import datetime, timedelta, timezone

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, Int64

with open("feature_store.yaml", "w") as f:
    f.write(f"""project: bench
provider: local
registry: registry.db
online_store: {{type: redis, connection_string: "{os.environ['REDIS']}"}}
entity_key_serialization_version: 3
""")
store = FeatureStore(repo_path=".")
thing = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
view = FeatureView(
    name="v", entities=[thing], ttl=timedelta(days=3650),
    source=FileSource(path=os.environ["SOURCE"], timestamp_field="event_timestamp"),
    schema=[Field(name="id", dtype=Int64)] + [Field(name=f"f{i}", dtype=Float32) for i in range(int(os.environ["FEATURES"]))],
)
store.apply([thing, view])
start = time.monotonic()
store.materialize(datetime(2024, 1, 1, tzinfo=timezone.utc), datetime.now(timezone.utc))
print(json.dumps({"seconds": time.monotonic() - start}))
