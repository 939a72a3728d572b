COPY (
  SELECT s."label", m0.f0 AS "trips", m1.f2 AS "city"
  FROM (SELECT file_row_number AS row_id__, * FROM read_parquet(['labels.parquet'])) s
  LEFT JOIN m0 ON m0.row_id = s.row_id__
  LEFT JOIN (SELECT place, ev, f2 FROM picked) m1 ON m1.place = winner(s.row_id__)
  ORDER BY CASE WHEN m1.ev IS NOT DISTINCT FROM event(s.row_id__) THEN s.row_id__ ELSE error('the rows of a source are not those of before')::BIGINT END
) TO 'out.parquet' (FORMAT parquet)
