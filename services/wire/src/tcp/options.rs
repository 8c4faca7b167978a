//! TCP options: what Strata understands, read and written as Linux does.
//!
//! On the wire: MSS; SACK-permitted with timestamps, or NOP NOP timestamps; NOP window scale;
//! fast open; user timeout; SACK blocks last, as many as fit. With that order every option is
//! aligned to 32 bits, and the common data segment (NOP NOP timestamps) is one comparison.

use arrayvec::ArrayVec;

use crate::{Error, Result, SeqNumber};

/// Most bytes of options.
pub const MAX_LEN: usize = 40;
/// Most SACK blocks that fit (without timestamps; with them, three).
pub const MAX_SACK_BLOCKS: usize = 4;
/// Most bytes of a fast-open cookie (RFC 7413 4.1.1).
pub const MAX_COOKIE_LEN: usize = 16;
/// Greatest window scale (RFC 7323 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const USER_TIMEOUT: u8 = 28;
const FAST_OPEN: u8 = 34;

/// The timestamps option (RFC 7323 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub tsval: u32,
    /// The other side's clock, echoed; meaningful with ACK.
    pub tsecr: u32,
}

/// The options of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size; SYN only (RFC 9293 3.7.1). Never 0 when parsed.
    pub mss: Option<u16>,
    /// Shift of later windows; SYN only. Parsed values are limited to 14 (RFC 7323 2.3).
    pub window_scale: Option<u8>,
    /// SACK may be used; SYN only (RFC 2018 2).
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Received ranges, [left edge, right edge), the latest first (RFC 2018 4); with D-SACK a
    /// duplicate's range comes first (RFC 2883). Not checked against any window.
    pub sack: ArrayVec<(SeqNumber, SeqNumber), MAX_SACK_BLOCKS>,
    /// User timeout as on the wire: granularity bit (minutes) and 15 bits of value (RFC 5482).
    pub user_timeout: Option<u16>,
    /// Fast-open cookie; empty to ask for one; SYN only (RFC 7413).
    pub fast_open: Option<ArrayVec<u8, MAX_COOKIE_LEN>>,
}

/// What of the optional options fits, and the bytes of everything.
struct Plan {
    fast_open: bool,
    user_timeout: bool,
    sack_blocks: usize,
    len: usize,
}

impl Options {
    /// Reads an option list. Those that only a SYN may carry are ignored unless `syn`.
    ///
    /// Never fails: unknown kinds and known kinds of a wrong length are skipped, and a length
    /// that leaves the list ends it.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        // RFC 7323 appendix A recommends this layout, and everyone sends it.
        if let &[NOP, NOP, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3] = bytes {
            let timestamps = Timestamps {
                tsval: u32::from_be_bytes([v0, v1, v2, v3]),
                tsecr: u32::from_be_bytes([e0, e1, e2, e3]),
            };
            return Self {
                timestamps: Some(timestamps),
                ..Self::default()
            };
        }
        if bytes.is_empty() {
            return Self::default();
        }
        Self::parse_list(bytes, syn)
    }

    fn parse_list(mut bytes: &[u8], syn: bool) -> Self {
        let mut options = Self::default();
        loop {
            match *bytes {
                [] | [END, ..] => break,
                [NOP, ref rest @ ..] => bytes = rest,
                [kind, len, ref rest @ ..] => {
                    // The length counts kind and length; less, or more than is left, ends the
                    // list, as nothing after it can be found.
                    let Some(value_len) = usize::from(len).checked_sub(2) else {
                        break;
                    };
                    let Some((value, next)) = rest.split_at_checked(value_len) else {
                        break;
                    };
                    options.take(kind, value, syn);
                    bytes = next;
                }
                [_] => break,
            }
        }
        options
    }

    fn take(&mut self, kind: u8, value: &[u8], syn: bool) {
        match (kind, value) {
            // RFC 9293 3.7.1: "must only be sent in … SYN"; 0 would forbid all data.
            (MSS, &[high, low]) if syn => {
                self.mss = Some(u16::from_be_bytes([high, low])).filter(|&mss| mss != 0);
            }
            // RFC 7323 2.2: on a segment without SYN it must be ignored. 2.3: more than 14 is 14.
            (WINDOW_SCALE, &[shift]) if syn => {
                self.window_scale = Some(shift.min(MAX_WINDOW_SCALE));
            }
            // RFC 2018 2: must not be sent on non-SYN segments.
            (SACK_PERMITTED, &[]) if syn => self.sack_permitted = true,
            (TIMESTAMPS, &[v0, v1, v2, v3, e0, e1, e2, e3]) => {
                self.timestamps = Some(Timestamps {
                    tsval: u32::from_be_bytes([v0, v1, v2, v3]),
                    tsecr: u32::from_be_bytes([e0, e1, e2, e3]),
                });
            }
            (SACK, blocks) if blocks.len() % 8 == 0 => {
                self.sack.clear();
                let (blocks, _) = blocks.as_chunks::<8>();
                for &[l0, l1, l2, l3, r0, r1, r2, r3] in blocks.iter().take(MAX_SACK_BLOCKS) {
                    self.sack.push((
                        SeqNumber(u32::from_be_bytes([l0, l1, l2, l3])),
                        SeqNumber(u32::from_be_bytes([r0, r1, r2, r3])),
                    ));
                }
            }
            (USER_TIMEOUT, &[high, low]) => {
                self.user_timeout = Some(u16::from_be_bytes([high, low]));
            }
            (FAST_OPEN, cookie) if syn && valid_cookie_len(cookie.len()) => {
                self.fast_open = cookie.try_into().ok();
            }
            _ => {}
        }
    }

    /// Bytes that [`emit`](Self::emit) writes: a multiple of 4, at most 40.
    #[inline]
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.plan().len
    }

    /// How many SACK blocks fit beside timestamps (or without them), on a segment without SYN.
    #[inline]
    #[must_use]
    pub const fn sack_room(timestamps: bool) -> usize {
        if timestamps { 3 } else { MAX_SACK_BLOCKS }
    }

    /// Everything fixed takes at most 20 bytes, fast open at most 20 more; the rest is fitted in.
    #[inline]
    fn plan(&self) -> Plan {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += 12;
        } else if self.sack_permitted {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 4;
        }
        let fast_open = self
            .fast_open
            .as_ref()
            .is_some_and(|cookie| valid_cookie_len(cookie.len()));
        if let Some(cookie) = self.fast_open.as_ref().filter(|_| fast_open) {
            len += (2 + cookie.len()).next_multiple_of(4);
        }
        let user_timeout = self.user_timeout.is_some() && len + 4 <= MAX_LEN;
        if user_timeout {
            len += 4;
        }
        let room = MAX_LEN.saturating_sub(len + 4) / 8;
        let sack_blocks = self.sack.len().min(room);
        if sack_blocks > 0 {
            len += 4 + 8 * sack_blocks;
        }
        Plan {
            fast_open,
            user_timeout,
            sack_blocks,
            len,
        }
    }

    /// Writes the options to the front of `out` and returns how many bytes that took. SACK
    /// blocks, and a user timeout, that do not fit are left out; so is a fast-open cookie of a
    /// length that RFC 7413 forbids.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> Result<usize> {
        let plan = self.plan();
        let out = out.get_mut(..plan.len).ok_or(Error::BufferTooSmall)?;
        let mut to = Cursor { rest: out };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            to.put([MSS, 4, high, low]);
        }
        if let Some(Timestamps { tsval, tsecr }) = self.timestamps {
            if self.sack_permitted {
                to.put([SACK_PERMITTED, 2, TIMESTAMPS, 10]);
            } else {
                to.put([NOP, NOP, TIMESTAMPS, 10]);
            }
            to.put(tsval.to_be_bytes());
            to.put(tsecr.to_be_bytes());
        } else if self.sack_permitted {
            to.put([NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            to.put([NOP, WINDOW_SCALE, 3, shift]);
        }
        if let Some(cookie) = self.fast_open.as_ref().filter(|_| plan.fast_open) {
            to.put([FAST_OPEN, u8::try_from(2 + cookie.len()).unwrap_or(2)]);
            for &byte in cookie {
                to.put([byte]);
            }
            // An even cookie leaves 0 or 2 bytes to the boundary.
            if !(2 + cookie.len()).is_multiple_of(4) {
                to.put([NOP, NOP]);
            }
        }
        if let Some(timeout) = self.user_timeout.filter(|_| plan.user_timeout) {
            let [high, low] = timeout.to_be_bytes();
            to.put([USER_TIMEOUT, 4, high, low]);
        }
        if plan.sack_blocks > 0 {
            to.put([
                NOP,
                NOP,
                SACK,
                u8::try_from(2 + 8 * plan.sack_blocks).unwrap_or(2),
            ]);
            for (left, right) in self.sack.iter().take(plan.sack_blocks) {
                to.put(left.0.to_be_bytes());
                to.put(right.0.to_be_bytes());
            }
        }
        Ok(plan.len)
    }
}

/// RFC 7413 4.1.1: empty to request, else 4 to 16 bytes and an even number of them.
const fn valid_cookie_len(len: usize) -> bool {
    len == 0 || (len >= 4 && len <= MAX_COOKIE_LEN && len.is_multiple_of(2))
}

/// Writes small pieces one after the other into a buffer whose size was computed before.
struct Cursor<'a> {
    rest: &'a mut [u8],
}

impl Cursor<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        // The plan reserved exactly what is put; a piece without room would be dropped.
        if let Some((here, rest)) = core::mem::take(&mut self.rest).split_first_chunk_mut() {
            *here = bytes;
            self.rest = rest;
        }
    }
}
