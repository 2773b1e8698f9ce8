"""One element of a stanza: a tag, attributes, and content; whatsmeow calls it a Node as well.

Stanzas are XML in shape, written down here as XML for readers:
`<message id="3EB0" to="123@lid"><enc v="2" type="msg">ciphertext</enc></message>`.
`stanza_codec` turns them into bytes.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from whatsappd.model.jid import USER_SERVER, Jid

#: Attributes, by name. Everything that is no JID is text, numbers too.
Attrs = dict[str, str | Jid]

#: The address of the server itself.
SERVER = Jid("", USER_SERVER)


class Node(NamedTuple):
    """A stanza, or an element within one. Never changed: every writer makes a new one."""

    tag: str
    attrs: Attrs = {}  # noqa: RUF012  # never changed
    content: bytes | str | list[Node] | None = None

    @property
    def children(self) -> list[Node]:
        """The child elements; empty if the content is something else."""
        return self.content if isinstance(self.content, list) else []

    def child(self, tag: str) -> Node | None:
        """The first child with this tag, or None."""
        for node in self.children:
            if node.tag == tag:
                return node
        return None

    def text(self, name: str) -> str:
        """An attribute as text; empty when absent."""
        value = self.attrs.get(name, "")
        return value if isinstance(value, str) else str(value)

    def jid(self, name: str) -> Jid | None:
        """An attribute that is a JID; None when it is absent or something else."""
        value = self.attrs.get(name)
        return value if isinstance(value, Jid) else None

    @property
    def data(self) -> bytes:
        """The content as bytes; empty when there is none, or only child elements."""
        if isinstance(self.content, bytes):
            return self.content
        return self.content.encode() if isinstance(self.content, str) else b""


def timestamp() -> str:
    """The present as stanzas carry it (attribute `t`): whole seconds since the epoch, as text."""
    return str(int(time.time()))
