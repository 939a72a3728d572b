CREATE OR REPLACE TEMP TABLE w0 AS
SELECT s.row_id, s.k0, s.k1, max(f.ev) AS mts
FROM s0 s
JOIN (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') f
  ON s.k0 = f.k0 AND s.k1 = f.k1 AND f.ev <= s.t AND f.ev >= s.lo
GROUP BY s.row_id, s.k0, s.k1
