//! Level-triggered notes from an application to a transport: a bitmap of sockets whose words
//! changed, with a summary word above it.
//!
//! The application sets the bit, then the summary; the transport takes the summary, then the
//! bits. So a bit that is set while the transport takes is either taken or has its summary set
//! afterwards, and none is overlooked. What a transport had taken when it died is lost: its
//! successor looks at every socket once.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// The words, wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct Dirty<'a> {
    /// One bit for each word of `bits` that may have bits set.
    pub summary: &'a [AtomicU64],
    /// One bit a socket; at most 64 words for each of `summary`.
    pub bits: &'a [AtomicU64],
    /// Not 0 while the transport sleeps and wants to be woken.
    pub armed: &'a AtomicU32,
}

impl Dirty<'_> {
    /// Application: marks socket `slot`, whose words it has written before. Answers whether the
    /// transport must be woken.
    #[must_use]
    pub fn mark(&self, slot: u32) -> bool {
        let index = slot / 64;
        if let (Some(bits), Some(summary)) = (
            self.bits.get(index as usize),
            self.summary.get(index as usize / 64),
        ) {
            // Release: pairs with the Acquire of `take`; the socket's words come before.
            bits.fetch_or(1 << (slot % 64), Ordering::Release);
            // Release: pairs with the Acquire of `take`; the bit comes before.
            summary.fetch_or(1 << (index % 64), Ordering::Release);
        }
        // Pairs with the transport's fence between arming and looking again; see `doorbell`.
        fence(Ordering::SeqCst);
        self.armed.load(Ordering::Relaxed) != 0
    }

    /// Transport: takes what is marked and calls `each` with it.
    pub fn take(&self, mut each: impl FnMut(u32)) {
        for (base, summary) in (0..).step_by(64).zip(self.summary) {
            if summary.load(Ordering::Relaxed) != 0 {
                // Acquire: pairs with the second Release of `mark`.
                self.take_words(base, summary.swap(0, Ordering::Acquire), &mut each);
            }
        }
    }

    /// Takes the bits of the words that `words` names, the first of which is number `base`.
    fn take_words(&self, base: u32, mut words: u64, each: &mut impl FnMut(u32)) {
        while words != 0 {
            let index = base + words.trailing_zeros();
            words &= words - 1;
            let Some(bits) = self.bits.get(index as usize) else {
                continue;
            };
            // Acquire: pairs with the first Release of `mark`.
            let mut set = bits.swap(0, Ordering::Acquire);
            while set != 0 {
                let bit = set.trailing_zeros();
                set &= set - 1;
                each(index * 64 + bit);
            }
        }
    }

    /// Transport: whether anything is marked.
    #[must_use]
    pub fn any(&self) -> bool {
        self.summary.iter().any(|s| s.load(Ordering::Acquire) != 0)
    }

    /// Transport: wants to be woken, or not. After arming all sessions, fence (SeqCst) and look
    /// at [`Dirty::any`] again.
    pub fn set_armed(&self, armed: bool) {
        self.armed.store(armed.into(), Ordering::Relaxed);
    }
}
