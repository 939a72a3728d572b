{{- /* The narrow spine: rows with a NULL key or time leave here, which is the guard
       against DuckDB's ASOF join matching a NULL time with the newest row. */ -}}
CREATE OR REPLACE TEMP TABLE s{{.N}} AS
SELECT row_id, {{.KeyNames ""}}, t
{{- if .TTL}}, CASE WHEN t >= {{.TTL}} - 9223372036854775807 THEN t - {{.TTL}} ELSE -9223372036854775807 END AS lo{{end}}
FROM (
  SELECT {{.Spine.RowID}} AS row_id{{range $i, $k := .Keys}}, {{$k}} AS k{{$i}}{{end}}, {{.Spine.Time}} AS t
  FROM {{.Spine.From}}
)
WHERE t IS NOT NULL{{range $i, $k := .Keys}} AND k{{$i}} IS NOT NULL{{end}}
