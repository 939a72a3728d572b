"""An unmodified Feast SDK against hearth serve: reads, writes, pushes and materializes.

Run in a folder that holds feature_store.yaml; FEATURES is the feature repository that
hearth serves. The last line is "ok". Anything that is not as it should be is an error.
"""

import os
from datetime import datetime, timedelta, timezone

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.errors import FeastPermissionError, FeatureServiceNotFoundException, FeatureViewNotFoundException
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

features = os.environ["FEATURES"]
url = os.environ["HEARTH_URL"]
history = os.path.join(features, "data", "credit_history.parquet")
typed_path = os.path.join(features, "data", "typed.parquet")

store = FeatureStore(repo_path=".")
statuses = {0: "INVALID", 1: "PRESENT", 2: "NULL_VALUE", 3: "NOT_FOUND", 4: "OUTSIDE_MAX_AGE"}


def status(response, name):
    proto = response.proto
    at = list(proto.metadata.feature_names.val).index(name)
    return [statuses[s] for s in proto.results[at].statuses]


def read(refs, full=False, **entities):
    n = len(next(iter(entities.values())))
    rows = [{k: v[i] for k, v in entities.items()} for i in range(n)]
    return store.get_online_features(features=refs, entity_rows=rows, full_feature_names=full)


def same(what, got, want):
    if got != want:
        raise SystemExit(f"{what}: got {got!r}, want {want!r}")


def raises(what, kind, call):
    try:
        call()
    except kind as e:
        return str(e)
    raise SystemExit(f"{what} did not raise {kind.__name__}")


# What the client knows: Feast's registry needs the views for writes only.
known = pq.read_table(history).to_pandas()
someone, other = known.dob_ssn[0], known.dob_ssn[1]
debt = "credit_history:credit_card_due"
customer = Entity(name="customer", join_keys=["dob_ssn"], value_type=ValueType.STRING)
thing = Entity(name="thing", join_keys=["thing"], value_type=ValueType.INT64)
source = FileSource(path=history, timestamp_field="event_timestamp", created_timestamp_column="created_timestamp")
view = FeatureView(
    name="credit_history", entities=[customer], ttl=timedelta(days=7300),
    source=PushSource(name="credit_history_push", batch_source=source),
    schema=[Field(name="dob_ssn", dtype=String)] + [
        Field(name=n, dtype=Int64)
        for n in known.columns if n not in ("dob_ssn", "event_timestamp", "created_timestamp")],
)
typed = FeatureView(
    name="typed", entities=[thing], ttl=timedelta(0),
    source=FileSource(path=typed_path, timestamp_field="event_timestamp"),
    schema=[
        Field(name="thing", dtype=Int64), Field(name="f64", dtype=Float64), Field(name="f32", dtype=Float32),
        Field(name="i32", dtype=Int32), Field(name="flag", dtype=Bool), Field(name="seen", dtype=UnixTimestamp),
        Field(name="raw", dtype=Bytes), Field(name="tags", dtype=Array(String)), Field(name="scores", dtype=Array(Float64)),
    ],
)
at = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
pq.write_table(pa.table({
    "thing": pa.array([1, 2], pa.int64()), "event_timestamp": pa.array([at, at], pa.timestamp("us", "UTC")),
    "f64": pa.array([1.0, 0.5]), "f32": pa.array([2.0, 0.1], pa.float32()), "i32": pa.array([7, -7], pa.int32()),
    "flag": pa.array([True, False]), "seen": pa.array([at, at + timedelta(days=1)], pa.timestamp("us", "UTC")),
    "raw": pa.array([b"\x01\x02", b""], pa.binary()), "tags": pa.array([["a", "b"], []], pa.list_(pa.string())),
    "scores": pa.array([[1.0, 2.5], [3.0]], pa.list_(pa.float64())),
}), typed_path)
store.apply([customer, thing, view, typed])

# Nothing is there yet: declared defaults, and statuses that say so.
before = read(["zipcode_features:city", "zipcode_features:population", debt], zipcode=[76104], dob_ssn=[someone])
same("before materialize", before.to_dict(), {"zipcode": [76104], "dob_ssn": [someone], "city": [""], "population": [0], "credit_card_due": [None]})
same("status before", status(before, "city"), ["NOT_FOUND"])

# Materialize a window, then everything that is new; then asynchronously.
store.materialize(datetime(2015, 1, 1), datetime(2021, 1, 1), feature_views=["credit_history"])
store.materialize_incremental(datetime.now(timezone.utc))
store.materialize_incremental(datetime.now(timezone.utc), feature_views=["credit_history"], run_async=True)
raises("a view that is not declared", FeatureViewNotFoundException, lambda: store.materialize_incremental(datetime.now(timezone.utc), feature_views=["nothing"]))

# Read by references and by feature service, some rows unknown.
got = read([debt, "credit_history:hard_pulls"], dob_ssn=[someone, "nobody", other])
want = [int(known.credit_card_due[0]), None, int(known.credit_card_due[1])]
same("values", got.to_dict()["credit_card_due"], want)
same("statuses", status(got, "credit_card_due"), ["PRESENT", "NOT_FOUND", "PRESENT"])
same("columns", list(got.to_df().columns), ["dob_ssn", "credit_card_due", "hard_pulls"])
service = feast.FeatureService(name="credit_score_v1", features=[])
vector = store.get_online_features(features=service, entity_rows=[{"zipcode": 94109, "dob_ssn": someone}]).to_dict()
same("service", (vector["city"], vector["credit_card_due"]), (["SAN FRANCISCO"], [want[0]]))
full = read([debt], full=True, dob_ssn=[someone]).to_dict()
same("full names", full, {"dob_ssn": [someone], "credit_history__credit_card_due": [want[0]]})

# Every type keeps its type.
things = read(["typed:*"], thing=[1, 2])
shown = things.to_dict()
same("float64", shown["f64"], [1.0, 0.5])
same("float32", shown["f32"], [2.0, 0.1])
same("types", [type(v) for v in shown["f64"] + shown["f32"]], [float] * 4)
same("int32", shown["i32"], [7, -7])
same("bool", shown["flag"], [True, False])
same("timestamp", shown["seen"], [int(at.timestamp()), int((at + timedelta(days=1)).timestamp())])
same("bytes", shown["raw"], ["AQI=", ""])
same("list of strings", shown["tags"], [["a", "b"], None])
same("list of floats", shown["scores"], [[1.0, 2.5], [3.0]])

# Write: a newer row is served at once, an older one never.
row = {c: [0] for c in known.columns}
row.update(dob_ssn=[someone], credit_card_due=[4242], event_timestamp=[at], created_timestamp=[at])
store.write_to_online_store("credit_history", pd.DataFrame(row))
same("written", read([debt], dob_ssn=[someone]).to_dict()["credit_card_due"], [4242])
row.update(credit_card_due=[1], event_timestamp=[at - timedelta(days=1)])
store.write_to_online_store("credit_history", pd.DataFrame(row))
same("an older row", read([debt], dob_ssn=[someone]).to_dict()["credit_card_due"], [4242])
row.update(credit_card_due=[4343], event_timestamp=[at + timedelta(days=1)])
store.push("credit_history_push", pd.DataFrame(row))
same("pushed", read([debt], dob_ssn=[someone]).to_dict()["credit_card_due"], [4343])
later = at + timedelta(days=2)
store.write_to_online_store("typed", pd.DataFrame({
    "thing": [1], "event_timestamp": [later], "f64": [3.0], "f32": [0.25], "i32": [9], "flag": [False], "seen": [later],
    "raw": [None], "tags": [["c"]], "scores": [[4.0]]}))
shown = read(["typed:*"], thing=[1]).to_dict()
same("typed write", (shown["f64"], shown["seen"], shown["tags"], shown["scores"], shown["flag"]),
     ([3.0], [int(later.timestamp())], [["c"]], [[4.0]], [False]))

# The same by plain HTTP, as Feast's documentation has it.
headers = {"Authorization": "Bearer " + os.environ["HEARTH_TOKEN"]}
pushed = requests.post(url + "/push", headers=headers, json={"push_source_name": "credit_history", "to": "online", "df": {
    "dob_ssn": [other], "credit_card_due": [77], "event_timestamp": [at.isoformat()]}})
same("POST /push", pushed.status_code, 200)
same("after POST /push", read([debt], dob_ssn=[other]).to_dict()["credit_card_due"], [77])
same("GET /health", requests.get(url + "/health").status_code, 200)

# Errors arrive as Feast's own exceptions, at once: nothing that can never succeed is repeated.
raises("an unknown service", FeatureServiceNotFoundException, lambda: store.get_online_features(
    features=feast.FeatureService(name="nothing", features=[]), entity_rows=[{"dob_ssn": someone}]))
raises("an unknown view", FeatureViewNotFoundException, lambda: read(["nothing:x"], dob_ssn=[someone]))
os.environ["HEARTH_TOKEN"] = "wrong"
raises("a wrong token", FeastPermissionError, lambda: read([debt], dob_ssn=[someone]))
print("ok")
