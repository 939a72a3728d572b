CREATE OR REPLACE TEMP TABLE w0 AS
SELECT s.row_id, s.k0, s.k1, f.ev AS mts, s.t
FROM s0 s
ASOF JOIN (
  -- A row is visible from the later of its two times on. The running maximum carries the
  -- newest event among everything visible so far, so that one inequality is enough.
  SELECT k0, k1, vis, max(ev) OVER (PARTITION BY k0, k1 ORDER BY vis) AS ev
  FROM (SELECT k0, k1, ev, greatest(ev, coalesce(cr, ev)) AS vis FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00'))
) f
  ON s.k0 = f.k0 AND s.k1 = f.k1 AND s.t >= f.vis
WHERE f.ev >= s.lo
