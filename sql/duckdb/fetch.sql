{{- /* The selected features, once, for the winners. More rows than winners means ties. */ -}}
CREATE OR REPLACE TEMP TABLE m{{.N}} AS
SELECT w.row_id, f.ev, f.cr, f.del{{.Fetched "f."}}
FROM {{.Wide}} f
JOIN w{{.N}} w ON {{.KeysEqual "w" "f"}} AND f.ev = w.mts
{{- if .KnownAt}} AND (f.cr IS NULL OR f.cr <= w.t){{end}}
{{- if .Limit}}
LIMIT {{.Limit}}
{{- end}}
