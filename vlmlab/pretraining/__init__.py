"""How the embedded backbones are made: training pool, trainer and what their cards measure. Only `vlmlab build` imports it."""
