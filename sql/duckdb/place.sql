{{- /* Every label to the index: its entity, its time, its row. */ -}}
SELECT sum({{.Call.SQL "e.id" "s.t" "s.row_id"}})
FROM s{{.N}} s
JOIN e{{.N}} e ON {{.KeysEqual "s" "e"}}
