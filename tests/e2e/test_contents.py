"""What messages say, in both directions, through the real client: one test for each kind."""

from __future__ import annotations

from typing import Any

import pytest
from contacts import a_place
from daemons import following, in_sandbox, link
from neonize_protos import e2e

from whatsappd.errors import InvalidParams, KeyConflict


async def test_a_text_is_sent_and_arrives_in_the_same_shape() -> None:
    content = {"kind": "text", "text": "Grüße 🎉\n" + "x" * 65_000}
    async with in_sandbox() as (_, client, events):
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        asked: dict[str, Any] = {"company": "acme", "to": "+15550200", "key": "k"}
        row = await client.call("message.send", **asked, content=content, wait="delivered")
        assert (row["content"], row["text"]) == (content, content["text"])
        received = (await events.of_type("globex", "message.received"))["data"]
        assert (received["content"], received["text"]) == (content, content["text"])
        assert (received["from_me"], received["origin"], received["forwarded"]) == (False, None, 0)
        # The short form is the same message, and another content is not.
        again = await client.call("message.send", **asked, text=content["text"])
        assert again["id"] == row["id"]
        with pytest.raises(KeyConflict):
            await client.call("message.send", **asked, content={"kind": "text", "text": "y"})
        for wrong in ({"kind": "smell"}, {"text": "x"}, {"kind": "unsupported", "type": "image"}):
            with pytest.raises(InvalidParams, match=r"content\.kind: .*accepted: text"):
                await client.call("message.send", company="acme", to="+15550200", content=wrong)
        with pytest.raises(InvalidParams, match="text, content"):
            await client.call("message.send", **asked, text="x", content=content)


async def test_what_a_contact_says_comes_with_all_that_is_around_it() -> None:
    async with (
        a_place() as place,
        place.daemon.client() as client,
        following(client) as events,
    ):
        device = await place.link(client, events, "acme", "+15550100")
        ann, bo = place.contact("+15550300", "Ann"), place.contact("+15550301", "Bo")

        async def received(text: str) -> dict[str, Any]:
            place.board.flush()
            event = await events.until(
                lambda event: event["type"] == "message.received" and event["data"]["text"] == text
            )
            return dict(event["data"])

        bo.say(device, "Hello")
        first = await received("Hello")
        assert first["sender"] == {
            "jid": "15550301@s.whatsapp.net", "lid": str(bo.account.lid),
            "phone": "+15550301", "name": "Bo",
        }  # fmt: skip
        assert first["chat"] == {**first["sender"], "type": "person"}
        about = e2e.ContextInfo(
            stanzaID=first["message_id"], participant=str(bo.account.lid),
            quotedMessage=e2e.Message(conversation="Hello"), forwardingScore=2, isForwarded=True,
            mentionedJID=[str(bo.account.lid)], expiration=86_400,
        )  # fmt: skip
        said = e2e.ExtendedTextMessage(text="As Bo says", contextInfo=about)
        ann.write(device, e2e.Message(extendedTextMessage=said).SerializeToString())
        data = await received("As Bo says")
        assert data["content"] == {"kind": "text", "text": "As Bo says"}
        # Of Bo only the LID is in the message; that it is his number was learnt before.
        bo_known = {**first["sender"], "name": None}
        assert data["reply_to"] == {
            "message_id": first["message_id"], "sender": bo_known,
            "content": {"kind": "text", "text": "Hello"},
        }  # fmt: skip
        assert data["mentions"] == [bo_known]
        assert (data["forwarded"], data["expires_s"], data["view_once"]) == (2, 86_400, False)
        image = e2e.ImageMessage(caption="A view", mediaKey=b"k" * 32, viewOnce=True)
        ann.write(device, e2e.Message(imageMessage=image).SerializeToString())
        data = await received("A view")
        assert (data["content"]["kind"], data["content"]["type"]) == ("unsupported", "image")
        assert e2e.Message.FromString(data["content"]["raw"]).imageMessage == image
