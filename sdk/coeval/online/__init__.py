"""The online store: names of keys, layout, guarded writer, read plan, reader. It knows Redis, and no other engine."""
