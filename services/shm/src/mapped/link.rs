//! A link: the memory between an upper and a lower neighbour.
//!
//! ```text
//!   0     magic, version, ring capacity
//!   64    what the upper side registers below (EtherTypes, protocol numbers): u32 count, u32 x 15
//!   128   what the lower side tells about the device: words, see [`DeviceWords`]
//!   4096  ring down (upper produces)
//!   ...   ring up   (lower produces)
//! ```
//!
//! Registrations are levels, not messages: they are there for whoever is restarted.

use crate::error::ShmError;
use crate::mapped::mapping::{self, Mapping};
use crate::ring::{self, Consumer, Producer, RingWords};
use crate::sync::Ordering;
use std::os::fd::{AsFd, OwnedFd};

const MAGIC: u64 = u64::from_le_bytes(*b"STRATA-L");
const REGISTERED: usize = 64;
const MAX_REGISTERED: usize = 15;
const DEVICE: usize = 128;
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
    let bad = ShmError::BadLayout("header of a link");
    map.u32_at(8)
        .ok_or(bad)?
        .store(abi::LAYOUT_VERSION, Ordering::Relaxed);
    let bad = ShmError::BadLayout("header of a link");
    map.u64_at(0).ok_or(bad)?.store(MAGIC, Ordering::Release);
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
}

impl Link {
    /// Maps the link in `fd`.
    ///
    /// # Errors
    /// When it is not a sealed link of this layout version.
    pub fn attach(fd: &impl AsFd) -> Result<&'static Self, ShmError> {
        let map = Mapping::map(fd, size(), true)?;
        let found = map.u64_at(0).map_or(0, |w| w.load(Ordering::Acquire));
        if found != MAGIC {
            return Err(ShmError::Layout {
                what: "link",
                found,
                expected: MAGIC,
            });
        }
        let version = map.u32_at(8).map_or(0, |w| w.load(Ordering::Relaxed));
        if version != abi::LAYOUT_VERSION {
            return Err(ShmError::Layout {
                what: "link",
                found: version.into(),
                expected: abi::LAYOUT_VERSION.into(),
            });
        }
        let this = Box::leak(Box::new(Self { map }));
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
        for (i, &number) in numbers.iter().take(n).enumerate() {
            if let Some(w) = self.map.u32_at(REGISTERED + 4 + i * 4) {
                w.store(number.into(), Ordering::Relaxed);
            }
        }
        if let Some(w) = self.map.u32_at(REGISTERED) {
            // Release: pairs with the Acquire in `registered`.
            w.store(u32::try_from(n).unwrap_or(0), Ordering::Release);
        }
    }

    /// Lower side: what is registered now.
    pub fn registered(&self) -> impl Iterator<Item = u16> + '_ {
        let n = self
            .map
            .u32_at(REGISTERED)
            .map_or(0, |w| w.load(Ordering::Acquire)) as usize;
        (0..n.min(MAX_REGISTERED)).filter_map(|i| {
            let w = self.map.u32_at(REGISTERED + 4 + i * 4)?;
            u16::try_from(w.load(Ordering::Relaxed)).ok()
        })
    }

    /// Lower side: says what the device is.
    pub fn set_device(&self, d: DeviceWords) {
        let [a, b, c, e, f, g] = d.mac;
        let word = u64::from_le_bytes([a, b, c, e, f, g, 0, 0]) | u64::from(d.mtu) << 48;
        let flags = 1 | u32::from(d.checksum) << 1 | u32::from(d.segmentation) << 2;
        if let (Some(w), Some(fl)) = (self.map.u64_at(DEVICE), self.map.u32_at(DEVICE + 8)) {
            w.store(word, Ordering::Relaxed);
            // Release: pairs with the Acquire in `device`.
            fl.store(flags, Ordering::Release);
        }
    }

    /// Upper side: what the driver said of the device.
    #[must_use]
    pub fn device(&self) -> DeviceWords {
        let flags = self
            .map
            .u32_at(DEVICE + 8)
            .map_or(0, |w| w.load(Ordering::Acquire));
        let word = self
            .map
            .u64_at(DEVICE)
            .map_or(0, |w| w.load(Ordering::Relaxed));
        let [a, b, c, e, f, g, lo, hi] = word.to_le_bytes();
        DeviceWords {
            present: flags & 1 != 0,
            mtu: u16::from_le_bytes([lo, hi]),
            mac: [a, b, c, e, f, g],
            checksum: flags & 2 != 0,
            segmentation: flags & 4 != 0,
        }
    }
}
