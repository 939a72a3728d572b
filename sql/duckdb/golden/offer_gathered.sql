SELECT sum(call(e.id, f.ev, f.cr, f.place, f.del))
FROM (SELECT k0 AS k0, k1 AS k1, ev AS ev, cr AS cr, del AS del, place AS place
    FROM f0) f
JOIN e0 e ON f.k0 = e.k0 AND f.k1 = e.k1
