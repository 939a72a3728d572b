CREATE OR REPLACE TEMP TABLE t0 AS
SELECT * FROM w0 WHERE row_id IN (SELECT row_id FROM m0 GROUP BY row_id HAVING count(*) > 1);
DELETE FROM m0 WHERE row_id IN (SELECT row_id FROM t0);
INSERT INTO m0
SELECT row_id, ev, cr, del, f0, f2
FROM (
  SELECT w.row_id, f.*
  FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr, coalesce("is_deleted", false) AS del, "trips"::BIGINT AS f0, "rating"::DOUBLE AS f1, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') f
  JOIN t0 w ON w.k0 = f.k0 AND w.k1 = f.k1 AND f.ev = w.mts AND (f.cr IS NULL OR f.cr <= w.t)
)
QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY cr DESC NULLS LAST, md5(row(del, f0, f1, f2)::VARCHAR) DESC) = 1
