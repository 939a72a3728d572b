SELECT k0, k1, ev, cr, del, f0, f1, f2
FROM (
  SELECT *, count(*) OVER (
      PARTITION BY k0, k1 ORDER BY ev DESC, cr DESC NULLS LAST RANGE BETWEEN CURRENT ROW AND CURRENT ROW) AS peers
  FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr, coalesce("is_deleted", false) AS del, "trips"::BIGINT AS f0, "rating"::DOUBLE AS f1, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet']))
  QUALIFY rank() OVER (PARTITION BY k0, k1 ORDER BY ev DESC, cr DESC NULLS LAST) = 1
)
QUALIFY row_number() OVER (PARTITION BY k0, k1 ORDER BY CASE WHEN peers > 1 THEN md5(row(del, f0, f1, f2)::VARCHAR) END DESC) = 1
