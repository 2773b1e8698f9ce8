"""Taking rights away from a process of our own: Landlock, seccomp, and what goes with them.

Standard library only, and free of the rest of the project: the fork server and its workers confine
themselves with it (`engines.neonize.worker.confine` decides what they keep), the daemon and the
gateway use the harmless parts, and `whatsappctl doctor` asks it what the kernel offers.

Linux on x86-64 and aarch64. On another machine Landlock works, and seccomp counts as missing.
"""
