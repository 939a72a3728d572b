"""Builds the benchmark's training set with another library.

    python3 peers.py probe
    python3 peers.py feast|polars DIR OUT THREADS

probe prints a JSON list of the libraries that are installed. A run writes
OUT/part.parquet and prints its seconds, imports left out.
"""

import importlib
import json
import os
import sys
import time
from datetime import timedelta

# name, keys, days of life: the views of main.go
VIEWS = [("a", ["driver_id"], 3), ("b", ["driver_id", "region_id"], 14)]


def features(name):
    return [f"{name}_{'s' if i >= 7 else 'f'}{i}" for i in range(10)]


def run_polars(pl, folder, out):
    start = time.perf_counter()
    left = pl.scan_parquet(f"{folder}/spine.parquet").with_row_index("row").sort("event_timestamp")
    for name, keys, days in VIEWS:
        right = (
            pl.scan_parquet(f"{folder}/{name}.parquet")
            .select(keys + ["event_timestamp", "created"] + features(name))
            .sort(["event_timestamp", "created"])
            .drop("created")
            .with_columns(pl.col("event_timestamp").set_sorted())
        )
        left = left.join_asof(right, on="event_timestamp", by=keys, strategy="backward", tolerance=timedelta(days=days), check_sortedness=False)
    left.sort("row").drop("row").collect().write_parquet(f"{out}/part.parquet", compression="zstd")
    return time.perf_counter() - start


def run_feast(feast, folder, out):
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
    from feast.types import Float64, Int64, String

    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=f"{out}/registry.db",
            online_store=None,
            offline_store=DuckDBOfflineStoreConfig(),
            entity_key_serialization_version=3,
        )
    )
    entities = {k: Entity(name=k, join_keys=[k], value_type=ValueType.INT64) for k in ("driver_id", "region_id")}
    views = []
    for name, keys, days in VIEWS:
        source = FileSource(name=name, path=f"{folder}/{name}.parquet", timestamp_field="event_timestamp", created_timestamp_column="created")
        schema = [Field(name=k, dtype=Int64) for k in keys]
        schema += [Field(name=f, dtype=String if "_s" in f else Float64) for f in features(name)]
        views.append(FeatureView(name=name, entities=[entities[k] for k in keys], ttl=timedelta(days=days), schema=schema, source=source, online=False))
    store.apply([*entities.values(), *views])
    start = time.perf_counter()
    spine = pd.read_parquet(f"{folder}/spine.parquet")
    refs = [f"{name}:{f}" for name, _, _ in VIEWS for f in features(name)]
    table = store.get_historical_features(entity_df=spine, features=refs).to_arrow()
    import pyarrow.parquet as pq

    pq.write_table(table, f"{out}/part.parquet", compression="zstd")
    return time.perf_counter() - start


def main():
    if sys.argv[1] == "probe":
        found = []
        for name in ("feast", "polars"):
            try:
                importlib.import_module(name)
                found.append(name)
            except ImportError:
                pass
        print(json.dumps(found))
        return
    name, folder, out, threads = sys.argv[1:5]
    os.environ["POLARS_MAX_THREADS"] = threads
    os.environ["FEAST_USAGE"] = "False"
    os.makedirs(out, exist_ok=True)
    library = importlib.import_module(name)
    seconds = {"polars": run_polars, "feast": run_feast}[name](library, folder, out)
    print(json.dumps({"seconds": seconds, "note": f"{name} {library.__version__}"}))


if __name__ == "__main__":
    main()
