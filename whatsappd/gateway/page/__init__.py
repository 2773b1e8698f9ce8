"""The page at `/`: for people with a browser and a key. `routes` serves the files beside it,
and the guides, which `guides` makes pages of.

Plain HTML, CSS and JavaScript modules as the browser gets them; nothing builds them, and nothing
comes from another host. The page is one more client of `/v1`: it can do what its key can.
"""
