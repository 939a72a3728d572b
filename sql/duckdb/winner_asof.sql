{{- /* The winner's time per spine row, by a narrow ASOF join over dense numbers instead of
       keys: one small integer is sorted faster than several keys or text, and features of
       entities that are not in the spine leave before the sort.
       Tied rows share ev, the only thing taken, so the result does not depend on which of
       them ASOF met. The TTL is a filter above the join: in ON it is an error or a nested
       loop. */ -}}
CREATE OR REPLACE TEMP TABLE e{{.N}} AS
SELECT {{.KeyNames ""}}, (row_number() OVER ())::UINTEGER AS id FROM (SELECT DISTINCT {{.KeyNames ""}} FROM s{{.N}});
CREATE OR REPLACE TEMP TABLE w{{.N}} AS
SELECT s.row_id, {{.KeyNames "s."}}, f.ev AS mts{{if .KnownAt}}, s.t{{end}}
FROM (SELECT s.*, e.id FROM s{{.N}} s JOIN e{{.N}} e ON {{.KeysEqual "s" "e"}}) s
{{- if .KnownAt}}
ASOF JOIN (
  -- A row is visible from the later of its two times on. The running maximum carries the
  -- newest event among everything visible so far, so that one inequality is enough.
  SELECT id, vis, max(ev) OVER (PARTITION BY id ORDER BY vis) AS ev
  FROM (SELECT e.id, f.ev, greatest(f.ev, coalesce(f.cr, f.ev)) AS vis FROM {{.Narrow}} f JOIN e{{.N}} e ON {{.KeysEqual "f" "e"}})
) f
  ON s.id = f.id AND s.t >= f.vis
{{- else}}
ASOF JOIN (SELECT e.id, f.ev FROM {{.Narrow}} f JOIN e{{.N}} e ON {{.KeysEqual "f" "e"}}) f
  ON s.id = f.id AND s.t >= f.ev
{{- end}}
{{- if .TTL}}
WHERE f.ev >= s.lo
{{- end}};
DROP TABLE e{{.N}}
