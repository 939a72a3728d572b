{{- /* The newest row per key: event time, then created time (unknown last), then the digest
       of the row, which is worked out only where both times are equal. row_number and rank
       spill to disk; aggregates over structs would not. */ -}}
SELECT {{.Keys}}, ev, cr, del, {{.Columns}}
FROM (
  SELECT *, count(*) OVER (
      PARTITION BY {{.Keys}} ORDER BY ev DESC, cr DESC NULLS LAST RANGE BETWEEN CURRENT ROW AND CURRENT ROW) AS peers
  FROM {{.Rows}}
  QUALIFY rank() OVER (PARTITION BY {{.Keys}} ORDER BY ev DESC, cr DESC NULLS LAST) = 1
)
QUALIFY row_number() OVER (PARTITION BY {{.Keys}} ORDER BY CASE WHEN peers > 1 THEN {{.Scan.Digest ""}} END DESC) = 1
