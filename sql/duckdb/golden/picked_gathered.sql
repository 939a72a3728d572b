SELECT place, ev, f0, f2
FROM (SELECT place AS place, ev AS ev, f0 AS f0, f2 AS f2
    FROM f0)
WHERE call(place) = 1
