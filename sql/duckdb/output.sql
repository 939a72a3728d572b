{{- /* The spine's rows, once each, in the spine's order: only ORDER BY keeps it. */ -}}
COPY (
  SELECT {{range $i, $c := .Columns}}{{if $i}}, {{end}}{{$c}}{{end}}
  FROM (SELECT {{.Spine.RowID}} AS row_id__, * FROM {{.Spine.From}}) s
  {{- range .Joins}}
  LEFT JOIN {{.Source}} ON {{.On "s.row_id__"}}
  {{- end}}
  {{- if .Where}}
  WHERE {{.Where}}
  {{- end}}
  ORDER BY {{.Order}}
) TO {{literal .Path}} ({{join .Options ", "}})
