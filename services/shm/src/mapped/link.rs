//! A link: the memory between an upper and a lower neighbour.
//!
//! ```text
//!   0     header, twice: magic u64, version u64
//!   64    what the upper side registers below (EtherTypes, protocol numbers): u32 count, u32 x 15
//!   128   what the lower side tells about the device: words, see [`DeviceWords`]
//!   192   u64 x 2: checks of what is registered, and of the device's words
//!   4096  ring down (upper produces)
//!   ...   ring up   (lower produces)
//! ```
//!
//! Registrations are levels, not messages: they are there for whoever is restarted. Should
//! something write over them, the reader goes by what it read last, and the writer says it again
//! ([`Link::say_again`]).

use crate::crash::{self, Point};
use crate::error::ShmError;
use crate::mapped::header;
use crate::mapped::mapping::{self, Mapping};
use crate::ring::{self, Consumer, Producer, RingWords};
use crate::sync::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zerocopy::IntoBytes;

const MAGIC: u64 = u64::from_le_bytes(*b"STRATA-L");
const REGISTERED: usize = 64;
const MAX_REGISTERED: usize = 15;
const DEVICE: usize = 128;
const REGISTERED_CHECK: usize = 192;
const DEVICE_CHECK: usize = 200;
const RINGS: usize = 4096;

/// Handles a ring holds.
pub const RING_CAPACITY: u32 = 1024;

const fn size() -> usize {
    RINGS + 2 * ring::size(RING_CAPACITY).next_multiple_of(64)
}

/// Which end of a link a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Closer to the application.
    Upper,
    /// Closer to the wire.
    Lower,
}

/// Makes a link's memory.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str) -> Result<OwnedFd, ShmError> {
    let fd = mapping::create(name, size())?;
    let map = Mapping::map(&fd, size(), true)?;
    if !header::store(&map, [MAGIC, u64::from(abi::LAYOUT_VERSION)].as_bytes()) {
        return Err(ShmError::BadLayout("header of a link"));
    }
    Ok(fd)
}

/// What the driver says of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceWords {
    /// Whether the driver has ever reported.
    pub present: bool,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Own link-layer address.
    pub mac: [u8; 6],
    /// Completes checksums (in hardware or in the driver's software).
    pub checksum: bool,
    /// Segments super-frames (in hardware or in the driver's software).
    pub segmentation: bool,
}

/// An attached link. It stays mapped for the life of the process.
#[derive(Debug)]
pub struct Link {
    map: Mapping,
    /// What this process has said.
    said: Mutex<Words>,
    /// What it has read last.
    read: Mutex<Words>,
}

/// What is registered, and what the device is; each as it is in the memory.
#[derive(Debug, Default, Clone, Copy)]
struct Words {
    registered: Option<[u32; 1 + MAX_REGISTERED]>,
    device: Option<(u64, u32)>,
}

impl Link {
    /// Maps the link in `fd`.
    ///
    /// # Errors
    /// When it is not a sealed link of this layout version.
    pub fn attach(fd: &impl AsFd) -> Result<&'static Self, ShmError> {
        let map = Mapping::map(fd, size(), true)?;
        let mut header = [0; 2];
        let is_whole = header::load(&map, header.as_mut_bytes());
        for (found, expected) in header.into_iter().zip([MAGIC, abi::LAYOUT_VERSION.into()]) {
            if found != expected {
                return Err(ShmError::Layout {
                    what: "link",
                    found,
                    expected,
                });
            }
        }
        if !is_whole {
            let _ = header::store(&map, header.as_bytes());
        }
        let this = Box::leak(Box::new(Self {
            map,
            said: Mutex::default(),
            read: Mutex::default(),
        }));
        this.words(Side::Upper)
            .ok_or(ShmError::BadLayout("rings of a link"))?;
        this.words(Side::Lower)
            .ok_or(ShmError::BadLayout("rings of a link"))?;
        Ok(this)
    }

    /// The words of the ring that `producer` writes.
    #[must_use]
    pub fn words(&'static self, producer: Side) -> Option<RingWords<'static>> {
        let base = match producer {
            Side::Upper => RINGS,
            Side::Lower => RINGS + ring::size(RING_CAPACITY).next_multiple_of(64),
        };
        Some(RingWords {
            head: self.map.u32_at(base)?,
            tail: self.map.u32_at(base + 64)?,
            slots: self
                .map
                .u64s_at(base + ring::SLOTS_OFFSET, RING_CAPACITY as usize)?,
        })
    }

    /// The producing end for `side`.
    #[must_use]
    pub fn producer(&'static self, side: Side) -> Option<Producer<'static>> {
        self.words(side).map(Producer::attach)
    }

    /// The consuming end for `side`.
    #[must_use]
    pub fn consumer(&'static self, side: Side) -> Option<Consumer<'static>> {
        let other = match side {
            Side::Upper => Side::Lower,
            Side::Lower => Side::Upper,
        };
        self.words(other).map(Consumer::attach)
    }

    /// Upper side: registers the numbers it serves (EtherTypes or IP protocols), replacing what
    /// was registered before; at most 15.
    pub fn register(&self, numbers: &[u16]) {
        let n = numbers.len().min(MAX_REGISTERED);
        let mut words = [0; 1 + MAX_REGISTERED];
        let count = u32::try_from(n).unwrap_or(0);
        let all = [count].into_iter().chain(numbers.iter().map(|&n| n.into()));
        for (word, value) in words.iter_mut().zip(all) {
            *word = value;
        }
        lock(&self.said).registered = Some(words);
        self.say_registered(&words);
    }

    fn say_registered(&self, words: &[u32; 1 + MAX_REGISTERED]) {
        for (at, &value) in (REGISTERED..).step_by(4).zip(words) {
            if let Some(w) = self.map.u32_at(at) {
                w.store(value, Ordering::Relaxed);
            }
        }
        crash::reach(Point::LinkHalfSaid);
        if let Some(w) = self.map.u64_at(REGISTERED_CHECK) {
            // Release: pairs with the Acquire in `registered`.
            w.store(check(words), Ordering::Release);
        }
    }

    /// Lower side: what is registered now.
    pub fn registered(&self) -> impl Iterator<Item = u16> + use<> {
        let found = self
            .map
            .u64_at(REGISTERED_CHECK)
            .map_or(0, |w| w.load(Ordering::Acquire));
        let mut words = [0; 1 + MAX_REGISTERED];
        for (at, word) in (REGISTERED..).step_by(4).zip(&mut words) {
            *word = self.map.u32_at(at).map_or(0, |w| w.load(Ordering::Relaxed));
        }
        let mut read = lock(&self.read);
        if found == check(&words) {
            read.registered = Some(words);
        }
        let [n, numbers @ ..] = read.registered.unwrap_or_default();
        let numbers = numbers.into_iter().take(n as usize);
        numbers.filter_map(|n| u16::try_from(n).ok())
    }

    /// Lower side: says what the device is.
    pub fn set_device(&self, d: DeviceWords) {
        let [a, b, c, e, f, g] = d.mac;
        let word = u64::from_le_bytes([a, b, c, e, f, g, 0, 0]) | u64::from(d.mtu) << 48;
        let flags = 1 | u32::from(d.checksum) << 1 | u32::from(d.segmentation) << 2;
        lock(&self.said).device = Some((word, flags));
        self.say_device(word, flags);
    }

    fn say_device(&self, word: u64, flags: u32) {
        let words = (
            self.map.u64_at(DEVICE),
            self.map.u32_at(DEVICE + 8),
            self.map.u64_at(DEVICE_CHECK),
        );
        if let (Some(w), Some(f), Some(c)) = words {
            w.store(word, Ordering::Relaxed);
            f.store(flags, Ordering::Relaxed);
            crash::reach(Point::LinkHalfSaid);
            // Release: pairs with the Acquire in `device`.
            c.store(device_check(word, flags), Ordering::Release);
        }
    }

    /// Upper side: what the driver said of the device.
    #[must_use]
    pub fn device(&self) -> DeviceWords {
        let found = self
            .map
            .u64_at(DEVICE_CHECK)
            .map_or(0, |w| w.load(Ordering::Acquire));
        let flags = self
            .map
            .u32_at(DEVICE + 8)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        let word = self
            .map
            .u64_at(DEVICE)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        let mut read = lock(&self.read);
        if found == device_check(word, flags) {
            read.device = Some((word, flags));
        }
        let (word, flags) = read.device.unwrap_or_default();
        let [a, b, c, e, f, g, lo, hi] = word.to_le_bytes();
        DeviceWords {
            present: flags & 1 != 0,
            mtu: u16::from_le_bytes([lo, hi]),
            mac: [a, b, c, e, f, g],
            checksum: flags & 2 != 0,
            segmentation: flags & 4 != 0,
        }
    }

    /// Says again what this process has said, if it is not what is there. Answers whether it was
    /// not: something wrote over it.
    pub fn say_again(&self) -> bool {
        let said = *lock(&self.said);
        let is_there = |at: usize, check: u64| {
            self.map
                .u64_at(at)
                .is_some_and(|w| w.load(Ordering::Relaxed) == check)
        };
        let mut again = false;
        if let Some(words) = said.registered {
            let there = (REGISTERED..).step_by(4).zip(&words).all(|(at, &word)| {
                let now = self.map.u32_at(at).map(|w| w.load(Ordering::Relaxed));
                now == Some(word)
            });
            if !there || !is_there(REGISTERED_CHECK, check(&words)) {
                self.say_registered(&words);
                again = true;
            }
        }
        if let Some((word, flags)) = said.device {
            let now = (
                self.map.u64_at(DEVICE).map(|w| w.load(Ordering::Relaxed)),
                self.map
                    .u32_at(DEVICE + 8)
                    .map(|w| w.load(Ordering::Relaxed)),
            );
            if now != (Some(word), Some(flags))
                || !is_there(DEVICE_CHECK, device_check(word, flags))
            {
                self.say_device(word, flags);
                again = true;
            }
        }
        again
    }
}

/// A poisoned lock is one whose holder panicked, which ends a daemon.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of words as they are: 0 for nothing but zeros, which is a memory that nobody has written.
fn check(words: &[u32]) -> u64 {
    words.iter().fold(0, |sum: u64, &word| {
        (sum.rotate_left(7) ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

fn device_check(word: u64, flags: u32) -> u64 {
    (word.rotate_left(7) ^ u64::from(flags)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
