SELECT sum(call(e.id, s.t, s.row_id))
FROM s0 s
JOIN e0 e ON s.k0 = e.k0 AND s.k1 = e.k1
