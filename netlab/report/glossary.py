"""What each word of `ss -tanimo` means, for readers of a report.

By the names that `ss` prints; the members of `struct tcp_info` behind them are named where they
differ (include/uapi/linux/tcp.h; iproute2, misc/ss.c).
"""

from __future__ import annotations

FIELDS: dict[str, str] = {
    "bbr": "what BBR reckons with: bandwidth, least round trip time, gains",
    "ts": "time stamps are in use (RFC 7323)",
    "sack": "selective acknowledgements are in use (RFC 2018)",
    "ecn": "explicit congestion notification was agreed on (RFC 3168)",
    "ecnseen": "a packet marked as capable of ECN has come in",
    "fastopen": "the SYN carried data that were acknowledged (RFC 7413)",
    "app_limited": "the rate was limited by the program, not by the network",
    "wscale": "shifts of the windows: what the peer announced, what we announced (RFC 7323)",
    "rto": "retransmission timeout, ms",
    "backoff": "how often the timeout was doubled (icsk_backoff)",
    "rtt": "smoothed round trip time and its deviation, ms (RFC 6298)",
    "ato": "delayed-acknowledgement timeout, ms",
    "mss": "payload of the segments sent now, octets (snd_mss)",
    "pmtu": "MTU of the path as known here, octets",
    "rcvmss": "estimate of the peer's segment size, octets",
    "advmss": "segment size that was announced to the peer, octets",
    "cwnd": "congestion window, segments (snd_cwnd)",
    "ssthresh": "slow start ends at this window, segments (snd_ssthresh); absent: no loss so far",
    "bytes_sent": "octets of payload sent, repeats included",
    "bytes_retrans": "octets of payload that were repeated",
    "bytes_acked": "octets the peer has acknowledged",
    "bytes_received": "octets of payload taken in order",
    "segs_out": "segments sent, empty ones too",
    "segs_in": "segments received, empty ones too",
    "data_segs_out": "segments with payload sent",
    "data_segs_in": "segments with payload received",
    "send": "what cwnd, mss and rtt would allow, bit/s",
    "pacing_rate": "how fast segments are released, bit/s",
    "max_pacing_rate": "upper bound of pacing, bit/s",
    "delivery_rate": "most recent measured rate of delivery, bit/s",
    "delivered": "segments known to have arrived, repeats included",
    "delivered_ce": "of these: with a mark of congestion",
    "lastsnd": "ms since data were sent last",
    "lastrcv": "ms since data came last",
    "lastack": "ms since an acknowledgement came last",
    "busy": "ms in which there was something to send",
    "rwnd_limited": "ms in which the peer's window was the limit",
    "sndbuf_limited": "ms in which the send buffer was the limit",
    "unacked": "segments sent and not yet acknowledged",
    "retrans": "repeated segments that are out now, and repeats in all",
    "lost": "segments thought lost",
    "sacked": "segments acknowledged out of order",
    "fackets": "segments up to the highest that was acknowledged out of order",
    "dsack_dups": "repeats that the peer reported as needless (RFC 2883)",
    "reordering": "how far out of order segments may be before they count as lost",
    "reord_seen": "how often reordering was noticed",
    "rcv_rtt": "round trip time as the receiver estimates it, ms",
    "rcv_space": "what the program takes in a round trip, octets: the buffer follows it",
    "rcv_ssthresh": "the receive window may grow to this, octets",
    "snd_wnd": "the peer's window now, octets",
    "rcv_wnd": "our window now, octets",
    "notsent": "octets in the send buffer that were not sent yet",
    "minrtt": "least round trip time seen, ms",
    "rcv_ooopack": "segments that came out of order",
    "tcp-ulp-mptcp": "multipath TCP uses this connection",
    "ino": "number of the socket's inode",
    "sk": "the kernel's cookie of the socket",
    "uid": "user that owns the socket",
    "cgroup": "control group of its owner",
    "users": "programs that hold it",
    "rehash": "how often another path through the network was tried (tcpi_rehash)",
}
MEMORY: dict[str, str] = {
    "rmem_alloc": "receive buffer in use, octets",
    "rcvbuf": "limit of the receive buffer, octets",
    "wmem_alloc": "send buffer handed down, octets",
    "sndbuf": "limit of the send buffer, octets",
    "fwd_alloc": "memory reserved for what comes, octets",
    "wmem_queued": "send queue, octets",
    "optmem": "memory for options, octets",
    "backlog": "packets that wait while the socket is in use, octets",
    "drops": "packets dropped at this socket",
}
TIMERS: dict[str, str] = {
    "on": "retransmission timer",
    "keepalive": "keep-alive timer",
    "timewait": "end of TIME-WAIT, or of a FIN-WAIT-2 that no program holds any more",
    "persist": "probe of a closed window",
    "unknown": "other timer",
}


def explain(word: str) -> str:
    """Return the meaning of a word of `ss`; empty for one that is not known here."""
    return FIELDS.get(word, MEMORY.get(word, ""))
