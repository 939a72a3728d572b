{{- /* The winner's time per spine row, by a hash join inside the TTL, with or without time
       buckets of one TTL: a match lies in the spine row's bucket or in the one before. */ -}}
CREATE OR REPLACE TEMP TABLE w{{.N}} AS
SELECT s.row_id, {{.KeyNames "s."}}, max(f.ev) AS mts{{if .KnownAt}}, any_value(s.t) AS t{{end}}
{{- if .Bucket}}
FROM (SELECT *, unnest([t // {{.TTL}}, t // {{.TTL}} - 1]) AS b FROM s{{.N}}) s
JOIN (SELECT *, ev // {{.TTL}} AS b FROM {{.Narrow}}) f
  ON {{.KeysEqual "s" "f"}} AND s.b = f.b AND f.ev <= s.t
{{- else}}
FROM s{{.N}} s
JOIN {{.Narrow}} f
  ON {{.KeysEqual "s" "f"}} AND f.ev <= s.t
{{- end}}
{{- if .TTL}} AND f.ev >= s.lo{{end}}
{{- if .KnownAt}} AND (f.cr IS NULL OR f.cr <= s.t){{end}}
GROUP BY s.row_id, {{.KeyNames "s."}}
