COPY (
  SELECT s.row_id, m0.ev, m0.f0, m0.f2
  FROM (SELECT file_row_number AS row_id FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN m0 ON m0.row_id = s.row_id
  ORDER BY s.row_id
) TO 'v0.parquet' (FORMAT parquet)
