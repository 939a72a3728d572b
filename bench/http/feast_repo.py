"""A Feast repository with the benchmark's values in Redis: REDIS, FEATURES, ENTITIES."""

import os
from datetime import datetime, timedelta, timezone

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

count, entities = int(os.environ["FEATURES"]), int(os.environ["ENTITIES"])
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
    source=FileSource(path="unused.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name="id", dtype=Int64)] + [Field(name=f"f{i}", dtype=Float64) for i in range(count)],
)
rows = {"id": range(entities), "event_timestamp": [datetime.now(timezone.utc)] * entities}
rows |= {f"f{i}": [e + i / 7 for e in range(entities)] for i in range(count)}
pd.DataFrame(rows).to_parquet("unused.parquet")
store.apply([thing, view])
store.write_to_online_store("v", pd.DataFrame(rows))
