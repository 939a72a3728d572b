CREATE OR REPLACE TEMP TABLE f0 AS
SELECT f.*
FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr, coalesce("is_deleted", false) AS del, file_row_number AS place, "trips"::BIGINT AS f0, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') f
JOIN e0 e ON f.k0 = e.k0 AND f.k1 = e.k1
LIMIT 3000
