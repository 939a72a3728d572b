SELECT place, ev, cr, f0, f2
FROM (SELECT file_row_number AS place, epoch_us("event_timestamp") AS ev, epoch_us("created") AS cr, "trips"::BIGINT AS f0, "city"::VARCHAR AS f2
    FROM read_parquet(['features.parquet'])
    WHERE "event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00')
WHERE call(place) = 1
