"""MicroWorld: a small world that draws itself, with boxes, masks, relations and captions."""
