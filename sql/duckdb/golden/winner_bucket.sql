CREATE OR REPLACE TEMP TABLE w0 AS
SELECT s.row_id, s.k0, s.k1, max(f.ev) AS mts
FROM (SELECT *, unnest([t // 259200000000, t // 259200000000 - 1]) AS b FROM s0) s
JOIN (SELECT *, ev // 259200000000 AS b FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00')) f
  ON s.k0 = f.k0 AND s.k1 = f.k1 AND s.b = f.b AND f.ev <= s.t AND f.ev >= s.lo
GROUP BY s.row_id, s.k0, s.k1
