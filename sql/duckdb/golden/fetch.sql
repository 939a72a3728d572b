CREATE OR REPLACE TEMP TABLE m0 AS
SELECT w.row_id, f.ev, f.cr, f.del, f.f0, f.f2
FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr, coalesce("is_deleted", false) AS del, "trips"::BIGINT AS f0, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') f
JOIN w0 w ON w.k0 = f.k0 AND w.k1 = f.k1 AND f.ev = w.mts
LIMIT 3000
