CREATE OR REPLACE TEMP TABLE s0 AS
SELECT row_id, k0, k1, t
FROM (
  SELECT file_row_number AS row_id, "driver"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS t
  FROM read_parquet(['labels.parquet'])
)
WHERE t IS NOT NULL AND k0 IS NOT NULL AND k1 IS NOT NULL
