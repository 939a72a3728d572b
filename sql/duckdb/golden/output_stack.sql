COPY (
  SELECT s."label", m0.f0 AS "trips"
  FROM read_parquet(['spine.parquet']) s
  POSITIONAL JOIN read_parquet(['v0.parquet']) m0
  POSITIONAL JOIN read_parquet(['v1.parquet']) m1
  WHERE CASE WHEN m0.row_id = s.row_id__ AND m1.row_id = s.row_id__ THEN true
    ELSE error('the files of the views are out of step')::BOOLEAN END
) TO 'part.parquet' (FORMAT parquet)
