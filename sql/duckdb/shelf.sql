{{- /* The winners of one view, one row per spine row and in the spine's order, in a scratch
       file: what is on the shelf takes no memory until it is read, row group by row group. */ -}}
COPY (
  SELECT s.row_id, {{.Kept (print .Name ".")}}
  FROM (SELECT {{.Join.Spine.RowID}} AS row_id FROM {{.Join.Spine.From}}) s
  LEFT JOIN {{.Source}} ON {{.On "s.row_id"}}
  ORDER BY {{.Order}}
) TO {{literal .Path}} ({{join .Options ", "}})
