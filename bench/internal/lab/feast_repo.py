"""See FeastRepo in feast.go."""

import json
import os
import time
from datetime import datetime, timedelta, timezone

import feast.types
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType

count, source = int(os.environ["FEATURES"]), os.environ.get("SOURCE")
with open("feature_store.yaml", "w") as f:
    f.write(f"""project: bench
provider: local
registry: registry.db
online_store: {{type: redis, connection_string: "{os.environ['REDIS']}"}}
entity_key_serialization_version: 3
""")
if not source:
    entities = int(os.environ["ENTITIES"])
    rows = {"id": range(entities), "event_timestamp": [datetime.now(timezone.utc)] * entities}
    rows |= {f"f{i}": [e + i / 7 for e in range(entities)] for i in range(count)}
    frame = pd.DataFrame(rows)
    frame.to_parquet("unused.parquet")
store = FeatureStore(repo_path=".")
thing = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
dtype = getattr(feast.types, os.environ["DTYPE"])
view = FeatureView(
    name="v", entities=[thing], ttl=timedelta(days=3650),
    source=FileSource(path=source or "unused.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name="id", dtype=feast.types.Int64)] + [Field(name=f"f{i}", dtype=dtype) for i in range(count)],
)
store.apply([thing, view])
start = time.monotonic()
if source:
    store.materialize(datetime(2024, 1, 1, tzinfo=timezone.utc), datetime.now(timezone.utc))
else:
    store.write_to_online_store("v", frame)
print(json.dumps({"seconds": time.monotonic() - start}))
