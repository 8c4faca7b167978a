//! What happened to packets, one counter a cause, named after Linux's SNMP counters.
//!
//! The engine adds to plain numbers; the process moves them to shared memory once a batch.

macro_rules! counters {
    ($($name:ident = $text:literal: $doc:literal,)*) => {
        /// A counter of ipd.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $(#[doc = $doc] $name,)*
        }

        /// The counters' names, in order.
        pub const NAMES: &[&str] = &[$($text,)*];
    };
}

counters! {
    IpInReceives = "ip_in_receives": "Datagrams from devices.",
    IpInDelivers = "ip_in_delivers": "Datagrams handed to a transport.",
    IpInHdrErrors = "ip_in_hdr_errors": "Impossible header: version, lengths, fragment fields.",
    IpInCsumErrors = "ip_in_csum_errors": "Wrong header checksum.",
    IpInTruncated = "ip_in_truncated": "Shorter than the header says.",
    IpInMartianSource = "ip_in_martian_source": "Source that no host can have (RFC 1122 3.2.1.3).",
    IpInMartianDest = "ip_in_martian_dest": "Destination that may not come by wire.",
    IpInAddrErrors = "ip_in_addr_errors": "Not for us, and forwarding is not configured.",
    IpInLinkBroadcast = "ip_in_link_broadcast": "Unicast datagram in a broadcast frame (RFC 1122 3.3.6).",
    IpInUnknownProtos = "ip_in_unknown_protos": "Protocol that nobody ever registered.",
    IpInTransportAbsent = "ip_in_transport_absent": "Protocol that was registered, but is not now.",
    IpInDiscards = "ip_in_discards": "Dropped for want of room in the sk_buff.",
    IpInBcastPkts = "ip_in_bcast_pkts": "Broadcast datagrams.",
    IpInMcastPkts = "ip_in_mcast_pkts": "Multicast datagrams.",
    IpInCeMarks = "ip_in_ce_pkts": "Datagrams with Congestion Experienced.",
    IpOutRequests = "ip_out_requests": "Packets from transports.",
    IpOutTransmits = "ip_out_transmits": "Frames given to devices, ARP aside.",
    IpOutNoRoutes = "ip_out_no_routes": "No route to the destination.",
    IpOutAddrErrors = "ip_out_addr_errors": "Source or destination that may not be sent.",
    IpOutBroadcastDenied = "ip_out_bcast_denied": "Broadcast that the sender did not ask for.",
    IpOutDiscards = "ip_out_discards": "Malformed by the transport, or no headroom.",
    IpOutTooBig = "ip_out_too_big": "Too big for the path and not to be fragmented.",
    IpLoopback = "ip_loopback": "Packets looped to the own host.",
    IpLoopbackCopies = "ip_loopback_copies": "Looped packets copied between pools.",
    IpCopiedBytes = "ip_copied_bytes": "Payload bytes that ipd copied, for whatever reason.",
    IpPayloadBytes = "ip_payload_bytes": "Payload bytes that passed, both ways.",
    IpReasmReqds = "ip_reasm_reqds": "Fragments received.",
    IpReasmOks = "ip_reasm_oks": "Datagrams reassembled.",
    IpReasmFails = "ip_reasm_fails": "Reassemblies given up, for any cause.",
    IpReasmTimeout = "ip_reasm_timeout": "Reassemblies that took longer than 30 s.",
    IpReasmOverlaps = "ip_reasm_overlaps": "Datagrams dropped for overlapping fragments (RFC 5722).",
    IpReasmDuplicates = "ip_reasm_duplicates": "Fragments that were there already.",
    IpReasmEvicted = "ip_reasm_evicted": "Reassemblies that made room for others.",
    IpFragOks = "ip_frag_oks": "Datagrams fragmented.",
    IpFragFails = "ip_frag_fails": "Datagrams that could not be fragmented.",
    IpFragCreates = "ip_frag_creates": "Fragments made.",
    Ip6Unsupported = "ip6_unsupported": "IPv6 packets, which are not handled yet.",
    LinkUnknownType = "link_unknown_type": "Frames of an EtherType that is not ours.",
    IcmpInMsgs = "icmp_in_msgs": "ICMP messages received.",
    IcmpInErrors = "icmp_in_errors": "Malformed ones.",
    IcmpInCsumErrors = "icmp_in_csum_errors": "Wrong checksum.",
    IcmpInEchos = "icmp_in_echos": "Echo requests.",
    IcmpInEchoReps = "icmp_in_echo_reps": "Echo replies.",
    IcmpInDestUnreachs = "icmp_in_dest_unreachs": "Destination unreachable.",
    IcmpInTimeExcds = "icmp_in_time_excds": "Time exceeded.",
    IcmpInParmProbs = "icmp_in_parm_probs": "Parameter problem.",
    IcmpInIgnored = "icmp_in_ignored": "Redirects, source quenches and other types not acted on.",
    IcmpInUnmatched = "icmp_in_unmatched": "Errors about what this host did not send.",
    IcmpInEchoBcast = "icmp_in_echo_bcast": "Echo requests to many, which are not answered.",
    IcmpOutMsgs = "icmp_out_msgs": "ICMP messages made here.",
    IcmpOutEchoReps = "icmp_out_echo_reps": "Echo replies.",
    IcmpOutDestUnreachs = "icmp_out_dest_unreachs": "Destination unreachable.",
    IcmpOutTimeExcds = "icmp_out_time_excds": "Time exceeded.",
    IcmpOutParmProbs = "icmp_out_parm_probs": "Parameter problem.",
    IcmpOutLocal = "icmp_out_local": "Errors made for a transport of this host.",
    IcmpOutSuppressed = "icmp_out_suppressed": "Errors that may not be sent (RFC 1122 3.2.2).",
    IcmpOutRateGlobal = "icmp_out_rate_global": "Held back by the limit for all.",
    IcmpOutRateHost = "icmp_out_rate_host": "Held back by the limit of one destination.",
    NoBuffers = "no_buffers": "The own pool was used up.",
    PmtuUpdates = "pmtu_updates": "Path MTUs learned.",
    ArpInRequests = "arp_in_requests": "ARP requests.",
    ArpInReplies = "arp_in_replies": "ARP replies.",
    ArpInErrors = "arp_in_errors": "Malformed or impossible ARP packets.",
    ArpOutRequests = "arp_out_requests": "ARP requests sent.",
    ArpOutReplies = "arp_out_replies": "ARP replies sent.",
    ArpOutAnnounces = "arp_out_announcements": "Announcements sent (RFC 5227 2.3).",
    ArpConflicts = "arp_conflicts": "Others that use one of our addresses.",
    ArpDefences = "arp_defences": "Announcements against them (RFC 5227 2.4).",
    ArpLocked = "arp_locked": "Changes of address that came too soon after another.",
    NeighCreated = "neigh_created": "Neighbours added to the table.",
    NeighEvicted = "neigh_evicted": "Neighbours that made room for others.",
    NeighTableFull = "neigh_table_full": "Neighbours not learned because the table is full.",
    NeighResolved = "neigh_resolved": "Resolutions that succeeded.",
    NeighFailed = "neigh_failed": "Neighbours that did not answer.",
    NeighNegativeHits = "neigh_negative_hits": "Packets to neighbours known not to answer.",
    NeighQueueDrops = "neigh_queue_drops": "Packets dropped while they waited for resolution.",
    NeighRestored = "neigh_restored": "Neighbours taken over from the predecessor.",
    PmtuRestored = "pmtu_restored": "Path MTUs taken over from the predecessor.",
    StateCorrupt = "state_corrupt": "Records of the state memory that were reset.",
    RouteCacheHits = "route_cache_hits": "Lookups that the route cache answered.",
    RouteCacheMisses = "route_cache_misses": "Lookups that went to the FIB.",
    UpperRingFull = "upper_ring_full": "Dropped: a transport does not keep up.",
    LowerRingFull = "lower_ring_full": "Dropped: a device does not keep up.",
}

/// Counts since the process last took them.
#[derive(Debug)]
pub struct Counters {
    counts: [u64; NAMES.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: [0; NAMES.len()],
        }
    }
}

impl Counters {
    /// Adds `n`.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        if let Some(count) = self.counts.get_mut(counter as usize) {
            *count = count.wrapping_add(n);
        }
    }

    /// Adds one.
    #[inline]
    pub fn bump(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// The count since the last [`Counters::take`].
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or(0)
    }

    /// Hands the counts that moved to `f` (index, increment) and starts again from zero.
    pub fn take(&mut self, mut f: impl FnMut(usize, u64)) {
        for (index, count) in self.counts.iter_mut().enumerate() {
            if *count != 0 {
                f(index, std::mem::take(count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_fit_the_shared_field() {
        let mut seen = std::collections::HashSet::new();
        assert!(NAMES.iter().all(|n| n.len() < 32 && seen.insert(n)));
        assert!(NAMES.len() <= shm::vitals::MAX_COUNTERS);
    }

    #[test]
    fn counts_are_taken_once() {
        let mut c = Counters::default();
        c.add(Counter::ArpLocked, 3);
        let mut taken = Vec::new();
        c.take(|i, n| taken.push((i, n)));
        c.take(|i, n| taken.push((i, n)));
        assert_eq!(taken, [(Counter::ArpLocked as usize, 3)]);
    }
}
