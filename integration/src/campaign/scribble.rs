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
    /// The header of a session: its sizes, whether its transport sleeps, which sockets are dirty.
    Sessions,
    /// A connection's record, or the word that names its copy; its daemon is killed afterwards, so
    /// that it is read.
    Record,
    /// Likewise of udpd's sockets.
    Sockets,
    /// Likewise of ipd's neighbours and path MTUs.
    Neighbours,
    /// The header of a pool, a ring or a table of records, and what neighbours say there of
    /// themselves; a layer is killed afterwards, so that they are read.
    Header,
    /// Vital signs: progress, notes, counters.
    Vitals,
}

impl Memory {
    pub(super) const ALL: [Self; 11] = [
        Self::Ring,
        Self::Doorbell,
        Self::Ownership,
        Self::Descriptor,
        Self::Session,
        Self::Sessions,
        Self::Record,
        Self::Sockets,
        Self::Neighbours,
        Self::Header,
        Self::Vitals,
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
            Self::Sessions => "session's header and dirty bits",
            Self::Record => "connection's record, then SIGKILL of tcpd",
            Self::Sockets => "socket's record, then SIGKILL of udpd",
            Self::Neighbours => "neighbour's record, then SIGKILL of ipd",
            Self::Header => "header, then SIGKILL of a layer",
            Self::Vitals => "vital signs",
        }
    }

    /// The layer that is killed afterwards.
    pub(super) fn reader(self, random: &mut fastrand::Rng) -> Option<&'static str> {
        match self {
            Self::Record => Some("tcpd"),
            Self::Sockets => Some("udpd"),
            Self::Neighbours => Some("ipd"),
            Self::Header => random.choice(["netdevd", "ipd", "tcpd", "udpd"]),
            _ => None,
        }
    }

    /// Whether a memory of that name is one.
    fn is_named(self, name: &str) -> bool {
        match self {
            Self::Ring => name.starts_with("strata-link-"),
            Self::Doorbell => name.starts_with("strata-bell-"),
            Self::Ownership | Self::Descriptor => name.starts_with("strata-pool-"),
            Self::Session | Self::Sessions => name == "strata-session",
            Self::Record => name == "strata-state-tcpd",
            Self::Sockets => name == "strata-state-udpd",
            Self::Neighbours => name == "strata-state-ipd",
            Self::Header => ["strata-pool-", "strata-link-", "strata-state-"]
                .iter()
                .any(|prefix| name.starts_with(prefix)),
            Self::Vitals => name.starts_with("strata-vitals-"),
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
                control + each * socket(file, random)? + 8 * random.u64(0..each / 8)
            }
            Self::Sessions => {
                let dirty = u64::try_from(abi::session::header::DIRTY)?;
                8 * random.u64(0..(dirty + 8 * sockets(file)?.div_ceil(64)) / 8)
            }
            Self::Record | Self::Sockets | Self::Neighbours => record(file, random)?,
            // Either copy of the header, or what is behind the first one.
            Self::Header => random.choice([0, 0, 2048]).unwrap_or(0) + 8 * random.u64(0..26),
            Self::Vitals => match random.u8(0..3) {
                0 => 4096 + 8 * random.u64(0..1536),
                _ => 8 * random.u64(0..17),
            },
        })
    }
}

const PAGE: u64 = 4096;

fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Sockets that a session has had so far: those up to the last that was ever in use.
fn sockets(file: &File) -> Result<u64> {
    Ok(used_sockets(file)?.last().map_or(1, |&(last, _)| last + 1))
}

/// A socket of a session: mostly one that is in use.
fn socket(file: &File, random: &mut fastrand::Rng) -> Result<u64> {
    let in_use = used_sockets(file)?
        .into_iter()
        .filter(|&(_, state)| state != 0);
    let in_use: Vec<_> = in_use.map(|(socket, _)| socket).collect();
    match random.choice(in_use) {
        Some(socket) if random.u8(0..8) > 0 => Ok(socket),
        _ => Ok(random.u64(0..sockets(file)?)),
    }
}

/// The sockets that ever were in use, with their state.
fn used_sockets(file: &File) -> Result<Vec<(u64, u64)>> {
    use abi::session::{CONTROL_OFFSET, CONTROL_SIZE, control, header};
    let most = word(file, header::SOCKETS as u64)? & 0xffff_ffff;
    let mut used = Vec::new();
    for socket in 0..most.min(abi::session::MAX_SOCKETS.into()) {
        let block = CONTROL_OFFSET as u64 + CONTROL_SIZE as u64 * socket;
        // Slots are given out in their order.
        if word(file, block + (control::INCARNATION as u64 & !7))? >> 32 == 0 {
            break;
        }
        used.push((
            socket,
            word(file, block + control::STATE as u64)? & 0xffff_ffff,
        ));
    }
    Ok(used)
}

/// Slots of a pool, from its header: small and large ones, each a u32 behind magic and version.
fn slots(file: &File) -> Result<u64> {
    let (small, large) = (word(file, 12)? & 0xffff_ffff, word(file, 20)? & 0xffff_ffff);
    let slots = small + large;
    ensure!((1..1 << 20).contains(&slots), "a pool of {slots} slots");
    Ok(slots)
}

/// Somewhere in the current copy of a record in use, or its word (see `shm::records` for the layout).
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
    if random.u8(0..8) == 0 {
        return Ok(PAGE + 8 * index);
    }
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
        let is_one = memory.is_named(name);
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
