{{- /* The last step over shelved files: all have one row per spine row in the spine's order,
       so that they are read side by side, and nothing is joined, sorted or held. That the
       rows keep step is checked for every row, as it rests on the order of a scan. */ -}}
COPY (
  SELECT {{range $i, $c := .Columns}}{{if $i}}, {{end}}{{$c}}{{end}}
  FROM {{.Shelf}} s
  {{- range $i, $s := .Shelves}}
  POSITIONAL JOIN {{$s}} m{{$i}}
  {{- end}}
  WHERE CASE WHEN {{range $i, $s := .Shelves}}{{if $i}} AND {{end}}m{{$i}}.row_id = s.row_id__{{end}} THEN true
    ELSE error('the files of the views are out of step')::BOOLEAN END
) TO {{literal .Path}} ({{join .Options ", "}})
