//! Scribbling: a random word into shared memory, from outside. Whatever it hits, at most the
//! connection that the word belongs to may be lost.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    /// The rings between two neighbours: indices and handles.
    Ring,
    /// The words that say whether a daemon sleeps.
    Doorbell,
    /// The words that say who owns a buffer.
    Ownership,
    /// Descriptors of buffers (sk_buff).
    Descriptor,
    /// A socket's words in session memory.
    Session,
    /// A connection's record; its daemon is killed afterwards, so that it is read.
    Record,
}

impl Memory {
    pub(super) const ALL: [Self; 6] = [
        Self::Ring,
        Self::Doorbell,
        Self::Ownership,
        Self::Descriptor,
        Self::Session,
        Self::Record,
    ];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Doorbell => "doorbell word",
            Self::Ownership => "ownership word",
            Self::Descriptor => "descriptor",
            Self::Session => "socket's words",
            Self::Record => "connection's record, then SIGKILL of tcpd",
        }
    }

    /// How the memory of that kind is named.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Ring => "strata-link-",
            Self::Doorbell => "strata-bell-",
            Self::Ownership | Self::Descriptor => "strata-pool-",
            Self::Session => "strata-session",
            Self::Record => "strata-state-tcpd",
        }
    }

    /// One place for eight bytes in `file`.
    fn place(self, file: &File, random: &mut fastrand::Rng) -> Result<u64> {
        let size = file.metadata()?.len();
        Ok(match self {
            Self::Ring => {
                let ring = (size - PAGE) / 2;
                let base = PAGE + ring * random.u64(0..2);
                base + match random.u8(0..4) {
                    0 => 0,
                    1 => 64,
                    _ => 128 + 8 * random.u64(0..(ring - 128) / 8),
                }
            }
            Self::Doorbell => 0,
            Self::Ownership => PAGE + 8 * random.u64(0..slots(file)?),
            Self::Descriptor => {
                let slots = slots(file)?;
                let base = PAGE + (slots * 8).next_multiple_of(64);
                base + 8 * random.u64(0..slots * 192 / 8)
            }
            Self::Session => {
                let control = u64::try_from(abi::session::CONTROL_OFFSET)?;
                let each = u64::try_from(abi::session::CONTROL_SIZE)?;
                control + each * random.u64(0..USED_SOCKETS) + 8 * random.u64(0..each / 8)
            }
            Self::Record => record(file, random)?,
        })
    }
}

const PAGE: u64 = 4096;

/// Sockets that the mix has about.
const USED_SOCKETS: u64 = 60;

fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Slots of a pool, from its header: small and large ones, each a u32 behind magic and version.
fn slots(file: &File) -> Result<u64> {
    let (small, large) = (word(file, 12)? & 0xffff_ffff, word(file, 20)? & 0xffff_ffff);
    let slots = small + large;
    ensure!((1..1 << 20).contains(&slots), "a pool of {slots} slots");
    Ok(slots)
}

/// Somewhere in the current copy of a record in use (see `shm::records` for the layout).
fn record(file: &File, random: &mut fastrand::Rng) -> Result<u64> {
    let sizes = word(file, 24)?;
    let (count, len) = (sizes >> 32, sizes & 0xffff_ffff);
    let stride = (16 + len).next_multiple_of(64);
    let copies = (PAGE + 8 * count).next_multiple_of(PAGE);
    let used: Vec<(u64, u64)> = (0..count.min(256))
        .filter_map(|i| Some((i, word(file, PAGE + 8 * i).ok()?)))
        .filter(|(_, word)| word & 1 != 0)
        .collect();
    let (index, word) = random.choice(used).context("no record is in use")?;
    let copy = word >> 1 & 1;
    Ok(copies + (2 * index + copy) * stride + 8 * random.u64(0..(16 + len) / 8))
}

/// Writes a random word into a random place of `memory`, through the descriptors of the process
/// `holder`. Answers what and where, for people.
pub(super) fn scribble(holder: u32, memory: Memory, random: &mut fastrand::Rng) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("/proc/{holder}/fd"))? {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let name = target.strip_prefix("/memfd:").unwrap_or_default();
        let name = name.split(' ').next().unwrap_or_default();
        let is_one = match memory {
            Memory::Session | Memory::Record => name == memory.prefix(),
            _ => name.starts_with(memory.prefix()),
        };
        if is_one {
            files.push((name.to_owned(), path));
        }
    }
    files.sort();
    let (name, path) = random.choice(files).context("no such memory")?;
    let file = File::options().read(true).write(true).open(&path)?;
    let at = memory.place(&file, random)?;
    let before = word(&file, at)?;
    let value = match random.u8(0..5) {
        0 => 0,
        1 => u64::MAX,
        2 => before ^ 1 << random.u64(0..64),
        3 => before.wrapping_add(random.u64(1..2000)),
        _ => random.u64(..),
    };
    file.write_all_at(&value.to_le_bytes(), at)?;
    Ok(format!("{name} at {at}: {before:#x} -> {value:#x}"))
}
