"""`python -m whatsappctl`."""

from whatsappctl.cli import main

if __name__ == "__main__":
    main()
