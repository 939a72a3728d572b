{{- /* The fetch where ties are the rule (snapshots appended over and over): each pair of key
       and time is resolved once, then given to all of its spine rows. */ -}}
CREATE OR REPLACE TEMP TABLE m{{.N}} AS
SELECT w.row_id, f.ev, f.cr, f.del{{.Fetched "f."}}
FROM w{{.N}} w
JOIN (
  SELECT f.*
  FROM {{.All}} f
  JOIN (SELECT DISTINCT {{.KeyNames ""}}, mts FROM w{{.N}}) w ON {{.KeysEqual "w" "f"}} AND f.ev = w.mts
  QUALIFY row_number() OVER (PARTITION BY {{.KeyNames "f."}}, f.ev ORDER BY f.cr DESC NULLS LAST, {{.Digest "f."}} DESC) = 1
) f ON {{.KeysEqual "w" "f"}} AND f.ev = w.mts
