"""Delivering events to the URLs that somebody configured, from the daemon's log.

Nothing is kept here: what is configured, how far each webhook is, and what a receiver refused are
the daemon's (`store.port.WebhookStore`). So this process may be killed at any moment; the next one
goes on at the cursor, and a few events are delivered twice rather than one never.

    deliverer   the connection to the daemon; one `delivery` for each webhook that is enabled
    delivery    one webhook: reads ahead, keeps the order of each company, retries, pauses
    window      PURE: which events are in flight, and how far the cursor may move
    receivers   how the receivers are reached, and which have just recovered
    post        one HTTP request to a receiver, bounded in every way
    network     connections to checked addresses only
    signing     PURE: the headers that prove where an event comes from (Standard Webhooks)
    routes      `/v1/webhooks`
"""
