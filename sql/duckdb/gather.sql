{{- /* The rows of labelled entities, whole, where they are so few that they are read once and
       kept. More than the limit means that they are not. */ -}}
CREATE OR REPLACE TEMP TABLE f{{.N}} AS
SELECT f.*
FROM {{.Gathered}} f
JOIN e{{.N}} e ON {{.KeysEqual "f" "e"}}
LIMIT {{.Limit}}
