{{- /* The selected features of the rows that the index picked: read once, by their place. */ -}}
SELECT place, {{.Kept ""}}
FROM {{.WidePlaced}}
WHERE {{.Call.SQL "place"}} = 1
