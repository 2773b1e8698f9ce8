"""The user's guides, and how they are printed, served as HTML, and made into man pages.

*.md             the guides, one for each topic; `topics` lists them
parsed           a guide as a tree, and what all readers of that tree share
as_terminal      a guide as text (`whatsappctl help TOPIC`)
as_html          a guide as HTML (the gateway's `/manual/`)
as_roff          a guide as a man page (`man whatsappd-sending`)
command_pages    `whatsappctl.1` and `whatsappd.1`, from the commands' own help
generated        the tables in the guides that are written from the code
__main__         `python -m whatsappd.manual`: renew those tables, write the man pages
build_hook       lets the wheel have the man pages
"""
