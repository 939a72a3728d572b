{{- /* Every feature row of a labelled entity to the index: only keys and times are read, and
       the place of the row, by which its features are found again. */ -}}
SELECT sum({{.Call.SQL "e.id" "f.ev" "f.cr" "f.place" "f.del"}})
FROM {{.Placed}} f
JOIN e{{.N}} e ON {{.KeysEqual "f" "e"}}
