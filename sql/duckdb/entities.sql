{{- /* The entities of the labels, numbered from 0, with how many labels each has. */ -}}
CREATE OR REPLACE TEMP TABLE e{{.N}} AS
SELECT {{.KeyNames ""}}, n, row_number() OVER () - 1 AS id
FROM (SELECT {{.KeyNames ""}}, count(*) AS n FROM s{{.N}} GROUP BY {{.KeyNames ""}})
