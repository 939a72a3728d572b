COPY (
  SELECT s.row_id, m1.ev, m1.f0, m1.f2
  FROM (SELECT file_row_number AS row_id FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN (SELECT place, ev, f2 FROM picked) m1 ON m1.place = winner(s.row_id)
  ORDER BY CASE WHEN m1.ev IS NOT DISTINCT FROM event(s.row_id) THEN s.row_id ELSE error('the rows of a source are not those of before')::BIGINT END
) TO 'v1.parquet' (FORMAT parquet)
