{{- /* How many of the first rows belong to a labelled entity. */ -}}
SELECT count(*), count(e.id)
FROM (SELECT * FROM {{.Keyed}} LIMIT {{.Limit}}) f
LEFT JOIN e{{.N}} e ON {{.KeysEqual "f" "e"}}
