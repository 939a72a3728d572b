CREATE OR REPLACE TEMP TABLE e0 AS
SELECT k0, k1, (row_number() OVER ())::UINTEGER AS id FROM (SELECT DISTINCT k0, k1 FROM s0);
CREATE OR REPLACE TEMP TABLE w0 AS
SELECT s.row_id, s.k0, s.k1, f.ev AS mts
FROM (SELECT s.*, e.id FROM s0 s JOIN e0 e ON s.k0 = e.k0 AND s.k1 = e.k1) s
ASOF JOIN (SELECT e.id, f.ev FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') f JOIN e0 e ON f.k0 = e.k0 AND f.k1 = e.k1) f
  ON s.id = f.id AND s.t >= f.ev
WHERE f.ev >= s.lo;
DROP TABLE e0
