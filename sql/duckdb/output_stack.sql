{{- /* The last step over shelved files: all have one row per spine row in the spine's order,
       so that they are read side by side, and nothing is joined, sorted or held. */ -}}
COPY (
  SELECT {{range $i, $c := .Columns}}{{if $i}}, {{end}}{{$c}}{{end}}
  FROM {{.Shelf}} s
  {{- range $i, $s := .Shelves}}
  POSITIONAL JOIN {{$s}} m{{$i}}
  {{- end}}
) TO {{literal .Path}} ({{join .Options ", "}})
