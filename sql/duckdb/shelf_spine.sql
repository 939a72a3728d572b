{{- /* The spine in its order, numbered, beside the shelved views. */ -}}
COPY (
  SELECT {{.Spine.RowID}} AS row_id__, *
  FROM {{.Spine.From}}
  ORDER BY row_id__
) TO {{literal .Path}} ({{join .Options ", "}})
