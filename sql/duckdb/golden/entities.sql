CREATE OR REPLACE TEMP TABLE e0 AS
SELECT k0, k1, n, row_number() OVER () - 1 AS id
FROM (SELECT k0, k1, count(*) AS n FROM s0 GROUP BY k0, k1)
