"""`python -m whatsappd` is the `whatsappd` command."""

from whatsappd.cli import main

if __name__ == "__main__":
    main()
