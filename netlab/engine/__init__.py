"""Running labs: plans applied, nodes entered, processes kept, everything taken away again."""
