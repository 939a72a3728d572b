COPY (
  SELECT s."label"
  FROM (SELECT file_row_number AS row_id__, * FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN m0 ON m0.row_id = s.row_id__
  WHERE s.row_id__ >= 0 AND s.row_id__ < 100
  ORDER BY s.row_id__
) TO 'part.parquet' (FORMAT parquet)
