SELECT sum(call(id, n)) FROM e0
