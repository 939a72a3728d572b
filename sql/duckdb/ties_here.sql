{{- /* Breaks ties where every feature of the view was fetched: the losers are deleted, no
       row is read again. The order is that of ties.sql. */ -}}
CREATE OR REPLACE TEMP TABLE t{{.N}} AS
SELECT row_id FROM m{{.N}} GROUP BY row_id HAVING count(*) > 1;
DELETE FROM m{{.N}} WHERE rowid IN (
  SELECT rid FROM (
    SELECT rowid AS rid, row_number() OVER (PARTITION BY row_id ORDER BY cr DESC NULLS LAST, {{.Digest ""}} DESC) AS rn
    FROM m{{.N}} WHERE row_id IN (SELECT row_id FROM t{{.N}})
  ) WHERE rn > 1
)
