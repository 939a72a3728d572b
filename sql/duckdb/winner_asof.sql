{{- /* The winner's time per spine row, by a narrow ASOF join. Tied rows share ev, the only
       thing taken, so the result does not depend on which of them ASOF met.
       The TTL is a filter above the join: in ON it is an error or a nested loop. */ -}}
CREATE OR REPLACE TEMP TABLE w{{.N}} AS
SELECT s.row_id, {{.KeyNames "s."}}, f.ev AS mts{{if .KnownAt}}, s.t{{end}}
FROM s{{.N}} s
{{- if .KnownAt}}
ASOF JOIN (
  -- A row is visible from the later of its two times on. The running maximum carries the
  -- newest event among everything visible so far, so that one inequality is enough.
  SELECT {{.KeyNames ""}}, vis, max(ev) OVER (PARTITION BY {{.KeyNames ""}} ORDER BY vis) AS ev
  FROM (SELECT {{.KeyNames ""}}, ev, greatest(ev, coalesce(cr, ev)) AS vis FROM {{.Narrow}})
) f
  ON {{.KeysEqual "s" "f"}} AND s.t >= f.vis
{{- else}}
ASOF JOIN {{.Narrow}} f
  ON {{.KeysEqual "s" "f"}} AND s.t >= f.ev
{{- end}}
{{- if .TTL}}
WHERE f.ev >= s.lo
{{- end}}
