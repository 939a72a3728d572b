COPY (
  SELECT file_row_number AS row_id__, *
  FROM read_parquet(['labels.parquet'])
  ORDER BY row_id__
) TO 'spine.parquet' (FORMAT parquet)
