SELECT count(*), count(e.id)
FROM (SELECT * FROM (SELECT "driver_id"::BIGINT AS k0, "region"::VARCHAR AS k1
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00') LIMIT 3000) f
LEFT JOIN e0 e ON f.k0 = e.k0 AND f.k1 = e.k1
