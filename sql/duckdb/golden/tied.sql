SELECT place, md5(row(del, f0, f1, f2)::VARCHAR) AS digest
FROM (SELECT file_row_number AS place, coalesce("is_deleted", false) AS del, "trips"::BIGINT AS f0, "rating"::DOUBLE AS f1, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00')
WHERE call(place) = 1
