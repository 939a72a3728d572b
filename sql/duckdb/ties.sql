{{- /* Breaks ties, for the tied spine rows only: newest created time (a known one before an
       unknown one), then the digest of the row. */ -}}
CREATE OR REPLACE TEMP TABLE t{{.N}} AS
SELECT * FROM w{{.N}} WHERE row_id IN (SELECT row_id FROM m{{.N}} GROUP BY row_id HAVING count(*) > 1);
DELETE FROM m{{.N}} WHERE row_id IN (SELECT row_id FROM t{{.N}});
INSERT INTO m{{.N}}
SELECT row_id, ev, cr, del{{.Fetched ""}}
FROM (
  SELECT w.row_id, f.*
  FROM {{.All}} f
  JOIN t{{.N}} w ON {{.KeysEqual "w" "f"}} AND f.ev = w.mts
  {{- if .KnownAt}} AND (f.cr IS NULL OR f.cr <= w.t){{end}}
)
QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY cr DESC NULLS LAST, {{.Digest ""}} DESC) = 1
