"""A MessagePack-RPC client of another project (Neovim's, from pynvim), as a script: `SOCKET`.

Nothing of ours is imported here. It prints what it saw as JSON; test_rpc_foreign looks at that.
"""

import json
import sys

from pynvim.msgpack_rpc import socket_session

seen = {}
session = socket_session(sys.argv[1])  # begins with a notification of its own to Neovim
session.error_wrapper = LookupError
seen["hello"] = session.request("daemon.hello")
seen["echo"] = session.request("test.echo", {"value": {"nested": [1, "añ", None]}})
try:
    session.request("test.send", {"company": "acme"})
except LookupError as error:
    seen["error"] = error.args[0]
seen["subscribed"] = session.request("test.subscribe", {"size": 3})
seen["events"] = []
while len(seen["events"]) < 3:
    _, name, [arguments] = session.next_message()
    if name == "event":
        seen["events"].append(arguments)
print(json.dumps(seen))
