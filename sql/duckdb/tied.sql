{{- /* What chooses between rows of one entity and of equal times: the digest of the row. */ -}}
SELECT place, {{.Digest ""}} AS digest
FROM {{.AllPlaced}}
WHERE {{.Call.SQL "place"}} = 1
