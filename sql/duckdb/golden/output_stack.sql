COPY (
  SELECT s."label", m0.f0 AS "trips"
  FROM read_parquet(['spine.parquet']) s
  POSITIONAL JOIN read_parquet(['v0.parquet']) m0
  POSITIONAL JOIN read_parquet(['v1.parquet']) m1
) TO 'part.parquet' (FORMAT parquet)
