COPY (
  SELECT s.row_id, m.ev, m.cr, m.del, m.f0, m.f2
  FROM (SELECT file_row_number AS row_id FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN m0 m ON m.row_id = s.row_id
  ORDER BY s.row_id
) TO 'v0.parquet' (FORMAT parquet)
