{{- /* How many labels each entity has, to the index. */ -}}
SELECT sum({{.Call.SQL "id" "n"}}) FROM e{{.N}}
