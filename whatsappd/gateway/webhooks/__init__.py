"""Webhooks: the gateway posts events from the daemon's log to the URLs that were configured.

The gateway stores nothing. The daemon has the configuration, each webhook's cursor (how far it is),
and the dead letters (`store.port.WebhookStore`). So the gateway may be killed at any moment: the
next one goes on at the cursors. A few events are then delivered twice; none is lost.

    deliverer   the connection to the daemon; one `delivery` for each webhook that is enabled
    delivery    one webhook: reads ahead, keeps the order of each company, retries, pauses
    progress    one webhook: tells the daemon how far it is and how the receiver fares
    turn        the right to deliver, which one gateway has at a time
    log_feed    how far the log is
    window      PURE: which events are in flight, and how far the cursor may move
    receivers   how the receivers are reached, and which have just recovered
    post        one HTTP request to a receiver, bounded in every way
    network     connections to checked addresses only
    signing     PURE: the headers that prove where an event comes from (Standard Webhooks)
    routes      `/v1/webhooks`
"""
