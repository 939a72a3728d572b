{{- /* The winners of one view, one row per spine row and in the spine's order, in a scratch
       file: what is on the shelf takes no memory until it is read, row group by row group. */ -}}
COPY (
  SELECT s.row_id, m.ev, m.cr, m.del{{.Fetched "m."}}
  FROM (SELECT {{.Spine.RowID}} AS row_id FROM {{.Spine.From}}) s
  LEFT JOIN m{{.N}} m ON m.row_id = s.row_id
  ORDER BY s.row_id
) TO {{literal .Path}} ({{join .Options ", "}})
