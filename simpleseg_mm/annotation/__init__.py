"""The data engine: images in, annotated training shards out, as stages from a config
(:mod:`.stages`); and readers of one's own annotations (:mod:`.own_files`), which load no
framework."""
