CREATE OR REPLACE TEMP TABLE t0 AS
SELECT row_id FROM m0 GROUP BY row_id HAVING count(*) > 1;
DELETE FROM m0 WHERE rowid IN (
  SELECT rid FROM (
    SELECT rowid AS rid, row_number() OVER (PARTITION BY row_id ORDER BY cr DESC NULLS LAST, md5(row(del, f0, f1, f2)::VARCHAR) DESC) AS rn
    FROM m0 WHERE row_id IN (SELECT row_id FROM t0)
  ) WHERE rn > 1
)
