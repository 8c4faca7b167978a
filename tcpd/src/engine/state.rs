//! Connection states (RFC 9293 3.3.2).
//!
//! ```text
//!            connect        listen                     CLOSED: a socket that is neither
//!   CLOSED ---------> SYN_SENT   LISTEN                connected nor listening, or whose
//!                        |  \       | SYN: a child     connection is over
//!                SYN,ACK |   \ SYN  v
//!                        |    +-> SYN_RECEIVED
//!                        v            | ACK
//!                    ESTABLISHED <----+
//!              close /        \ FIN
//!         FIN_WAIT_1            CLOSE_WAIT
//!        ACK /   \ FIN              | close
//!   FIN_WAIT_2   CLOSING        LAST_ACK
//!         FIN \   / ACK             | ACK
//!          TIME_WAIT  --2MSL-->  CLOSED
//! ```

/// A connection's state. The numbers are part of the record's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// A socket without a connection: not yet, or no longer.
    Closed = 1,
    /// Accepts connections.
    Listen = 2,
    /// SYN sent.
    SynSent = 3,
    /// SYN received and answered.
    SynReceived = 4,
    /// Open both ways.
    Established = 5,
    /// Own FIN sent, not acknowledged.
    FinWait1 = 6,
    /// Own FIN acknowledged, the peer's outstanding.
    FinWait2 = 7,
    /// The peer's FIN received, own not sent.
    CloseWait = 8,
    /// Both FINs sent, own not acknowledged.
    Closing = 9,
    /// The peer closed first, own FIN sent.
    LastAck = 10,
    /// Closed; old duplicates are waited out.
    TimeWait = 11,
}

impl State {
    /// From a record's byte, if it is one of ours.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Closed,
            2 => Self::Listen,
            3 => Self::SynSent,
            4 => Self::SynReceived,
            5 => Self::Established,
            6 => Self::FinWait1,
            7 => Self::FinWait2,
            8 => Self::CloseWait,
            9 => Self::Closing,
            10 => Self::LastAck,
            11 => Self::TimeWait,
            _ => return None,
        })
    }

    /// Both sides know each other's initial sequence number and the handshake is over.
    #[must_use]
    pub const fn is_synchronized(self) -> bool {
        !matches!(
            self,
            Self::Closed | Self::Listen | Self::SynSent | Self::SynReceived
        )
    }

    /// There is a peer, so the four-tuple is taken.
    #[must_use]
    pub const fn has_peer(self) -> bool {
        !matches!(self, Self::Closed | Self::Listen)
    }

    /// The peer may still send data (its FIN has not been taken).
    #[must_use]
    pub const fn can_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Data or the FIN may have to be sent or sent again.
    #[must_use]
    pub const fn can_transmit(self) -> bool {
        matches!(
            self,
            Self::Established | Self::CloseWait | Self::FinWait1 | Self::Closing | Self::LastAck
        )
    }

    /// The name as `ss` and people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN_WAIT_1",
            Self::FinWait2 => "FIN_WAIT_2",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
        }
    }

    /// Linux's number of the state, as in `TCP_INFO`.
    #[must_use]
    pub const fn linux(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynReceived => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Closed => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Listen => 10,
            Self::Closing => 11,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_from_its_byte() {
        for byte in 0..=255u8 {
            if let Some(state) = State::from_byte(byte) {
                assert_eq!(state as u8, byte);
            } else {
                assert!(byte == 0 || byte > 11);
            }
        }
    }
}
