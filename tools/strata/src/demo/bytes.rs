//! The bytes that transfers carry: a stream that never repeats, made from a seed, so that a
//! misplaced, lost or doubled byte changes the checksum.

use crate::commands::fetch::hex;
use sha2::{Digest, Sha256};

/// An endless stream of bytes from a seed (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Bytes {
    state: u64,
}

impl Bytes {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next bytes. Call it with multiples of eight until the last piece.
    pub fn fill(&mut self, into: &mut [u8]) {
        // Whole words at once: unoptimised, byte after byte costs a test ten times as much.
        let (words, rest) = into.as_chunks_mut();
        for word in words {
            *word = self.word();
        }
        if !rest.is_empty() {
            for (to, from) in rest.iter_mut().zip(self.word()) {
                *to = from;
            }
        }
    }

    fn word(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

/// SHA-256 of the first `len` bytes of the stream of `seed`.
#[must_use]
pub fn digest(seed: u64, len: u64) -> String {
    let mut bytes = Bytes::new(seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(piece) = buffer.get_mut(..n) else {
            break;
        };
        bytes.fill(piece);
        hash.update(piece);
        left -= n as u64;
    }
    hex(&hash.finalize())
}
