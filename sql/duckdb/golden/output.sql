COPY (
  SELECT s."label", m0.f0 AS "trips", coalesce(m1.f2, '') AS "city"
  FROM (SELECT file_row_number AS row_id__, * FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN m0 ON m0.row_id = s.row_id__
  LEFT JOIN m1 ON m1.row_id = s.row_id__
  ORDER BY s.row_id__
) TO 'it''s out.parquet' (FORMAT parquet, COMPRESSION zstd)
