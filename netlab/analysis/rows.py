"""Typed rows of the tables of a summary.

Made from the schema of `netlab._core` by tests/capture/generate.py; do not edit. Each column is
described in docs/capture-schema.md.
"""

from __future__ import annotations

from netlab.analysis.record import Record


class Flow(Record):
    """A five-tuple, both directions; `orig` sent the SYN, or the first packet."""

    __slots__ = ()
    stream: int
    proto: str
    orig_h: str
    orig_p: int
    resp_h: str
    resp_p: int
    ip_version: int
    vlan: int | None
    tunnel: str | None
    tunnel_id: int | None
    interface: int
    first_frame: int
    last_frame: int
    ts: int | None
    duration: int | None
    conn_state: str
    completeness: int
    history: str
    closed_by: str | None
    initial_rtt: int | None
    syn_rtt: int | None
    ack_rtt3: int | None
    syn_retries: int
    reused_ports: int
    capture_side: str | None
    orig_pkts: int
    resp_pkts: int
    orig_bytes: int
    resp_bytes: int
    orig_ip_bytes: int
    resp_ip_bytes: int
    orig_payload_bytes: int
    resp_payload_bytes: int
    orig_unique_bytes: int
    resp_unique_bytes: int
    orig_data_pkts: int
    resp_data_pkts: int
    orig_max_seg: int
    resp_max_seg: int
    orig_pps: float | None
    resp_pps: float | None
    orig_throughput_bps: float | None
    resp_throughput_bps: float | None
    orig_syn: int
    resp_syn: int
    orig_synack: int
    resp_synack: int
    orig_fin: int
    resp_fin: int
    orig_rst: int
    resp_rst: int
    orig_retransmission: int
    resp_retransmission: int
    orig_fast_retransmission: int
    resp_fast_retransmission: int
    orig_spurious_retransmission: int
    resp_spurious_retransmission: int
    orig_out_of_order: int
    resp_out_of_order: int
    orig_duplicate_ack: int
    resp_duplicate_ack: int
    orig_lost_segment: int
    resp_lost_segment: int
    orig_ack_lost_segment: int
    resp_ack_lost_segment: int
    orig_zero_window: int
    resp_zero_window: int
    orig_zero_window_probe: int
    resp_zero_window_probe: int
    orig_zero_window_probe_ack: int
    resp_zero_window_probe_ack: int
    orig_window_full: int
    resp_window_full: int
    orig_window_update: int
    resp_window_update: int
    orig_keep_alive: int
    resp_keep_alive: int
    orig_keep_alive_ack: int
    resp_keep_alive_ack: int
    orig_partial_ack: int
    resp_partial_ack: int
    orig_retrans_bytes: int
    resp_retrans_bytes: int
    orig_retrans_pkts: int
    resp_retrans_pkts: int
    orig_hole_fills: int
    resp_hole_fills: int
    orig_dsack: int
    resp_dsack: int
    orig_sack_pkts: int
    resp_sack_pkts: int
    orig_sack_blocks: int
    resp_sack_blocks: int
    orig_max_dup_run: int
    resp_max_dup_run: int
    orig_bytes_in_flight_max: int
    resp_bytes_in_flight_max: int
    orig_zero_window_ns: int | None
    resp_zero_window_ns: int | None
    orig_ack_rtt_n: int
    resp_ack_rtt_n: int
    orig_ack_rtt_min: float | None
    resp_ack_rtt_min: float | None
    orig_ack_rtt_p50: float | None
    resp_ack_rtt_p50: float | None
    orig_ack_rtt_p90: float | None
    resp_ack_rtt_p90: float | None
    orig_ack_rtt_p99: float | None
    resp_ack_rtt_p99: float | None
    orig_ack_rtt_max: float | None
    resp_ack_rtt_max: float | None
    orig_ack_rtt_mean: float | None
    resp_ack_rtt_mean: float | None
    orig_karn_rtt_n: int
    resp_karn_rtt_n: int
    orig_karn_rtt_min: float | None
    resp_karn_rtt_min: float | None
    orig_karn_rtt_p50: float | None
    resp_karn_rtt_p50: float | None
    orig_karn_rtt_p90: float | None
    resp_karn_rtt_p90: float | None
    orig_karn_rtt_p99: float | None
    resp_karn_rtt_p99: float | None
    orig_karn_rtt_max: float | None
    resp_karn_rtt_max: float | None
    orig_karn_rtt_mean: float | None
    resp_karn_rtt_mean: float | None
    orig_karn_ambiguous: int
    resp_karn_ambiguous: int
    orig_mss: int | None
    resp_mss: int | None
    orig_wscale: int | None
    resp_wscale: int | None
    orig_sack_perm: bool
    resp_sack_perm: bool
    orig_timestamps: bool
    resp_timestamps: bool
    orig_tfo: bool
    resp_tfo: bool
    orig_mptcp: bool
    resp_mptcp: bool
    orig_win_min: int | None
    resp_win_min: int | None
    orig_win_max: int | None
    resp_win_max: int | None
    orig_ece: int
    resp_ece: int
    orig_cwr: int
    resp_cwr: int
    orig_ce_marks: int
    resp_ce_marks: int
    orig_icmp_unreach: int
    resp_icmp_unreach: int
    orig_icmp_frag_needed: int
    resp_icmp_frag_needed: int
    orig_mtu_hint: int | None
    resp_mtu_hint: int | None
    orig_bad_checksum: int
    resp_bad_checksum: int
    orig_partial_checksum: int
    resp_partial_checksum: int


class Segment(Record):
    """One TCP header, with what the analysis decided on it."""

    __slots__ = ()
    frame: int
    layer: int
    ts_ns: int | None
    stream: int
    from_orig: bool
    seq_raw: int
    ack_raw: int
    seq: int
    ack: int
    len: int
    flags: int
    window_raw: int
    window: int
    window_scale: int
    analysis: int
    retransmission: bool
    fast_retransmission: bool
    spurious_retransmission: bool
    out_of_order: bool
    duplicate_ack: bool
    lost_segment: bool
    ack_lost_segment: bool
    zero_window: bool
    zero_window_probe: bool
    zero_window_probe_ack: bool
    window_full: bool
    window_update: bool
    keep_alive: bool
    keep_alive_ack: bool
    reused_ports: bool
    partial_ack: bool
    duplicate_ack_num: int | None
    duplicate_ack_frame: int | None
    acks_frame: int | None
    ack_rtt_ns: int | None
    initial_rtt_ns: int | None
    rto_ns: int | None
    rto_frame: int | None
    bytes_in_flight: int | None
    push_bytes_sent: int | None
    retrans_bytes: int
    completeness: int
    mss: int | None
    wscale: int | None
    sack_perm: bool
    tsval: int | None
    tsecr: int | None
    sack: list[int] | None
    dsack: bool
    mptcp: int | None
    tfo: bool
    options_cut: bool
    analysed: bool
    frame_len: int
    ip_len: int
    ip_ttl: int
    ip_id: int
    ip_ce: bool
    interface: int
    reassembled: bool
    checksum: str | None


class Bin(Record):
    """What one side of a flow sent within one stretch of time."""

    __slots__ = ()
    proto: str
    stream: int
    t_ns: int
    from_orig: bool
    pkts: int
    bytes: int
    payload_bytes: int
    retransmission: int
    duplicate_ack: int
    bytes_in_flight_max: int
    window: int
    window_min: int
